#!/usr/bin/env bash
# Storage rates of the probe beside fio (io_uring, direct, registered buffers and file), on the same
# file: both in turn, ROUNDS times, the best of each. Prints a Markdown table.
#   bench/against_fio.sh FOLDER [BUILD_FOLDER] [ROUNDS] [SECONDS] [MEBIBYTES]
set -euo pipefail
folder=${1:?a folder on the disk to measure}
build=${2:-build/release}
rounds=${3:-5}
seconds=${4:-2}
mebibytes=${5:-1024}
mine=$build/probe_rates
[ -x "$mine" ] || { echo "build it first: ninja -C $build probe_rates" >&2; exit 1; }
command -v fio > /dev/null || { echo "fio is not installed" >&2; exit 1; }
free=$(df --output=avail -B1M "$folder" | tail -1)
[ "$free" -ge $((10 * mebibytes)) ] || { echo "less than ten times the file is free" >&2; exit 1; }
file=$(mktemp "$folder/.steelyard-against-fio-XXXXXX")
trap 'rm -f "$file"' EXIT
trap 'exit 130' INT TERM HUP
head -c "${mebibytes}M" /dev/urandom > "$file"
sync "$file"

# fio_rate KIND REQUEST DEPTH: MB/s
fio_rate() {
  local field=read
  [ "$1" = write ] && field=write
  fio --name=it --filename="$file" --rw="$1" --bs="$2" --iodepth="$3" --ioengine=io_uring --direct=1 \
    --fixedbufs --registerfiles --time_based --runtime="$seconds" --size="${mebibytes}M" \
    --output-format=json --refill_buffers=0 |
    python3 -c "import json, sys; print(json.load(sys.stdin)['jobs'][0]['$field']['bw_bytes'] / 1e6)"
}

larger() { awk -v a="$1" -v b="$2" 'BEGIN {print (b > a ? b : a)}'; }

echo "Context: $(uname -r), $(nproc) hardware threads, $(df --output=source,fstype "$folder" | tail -1)," \
  "load average $(cut -d' ' -f1 /proc/loadavg) before, file of $mebibytes MiB, $seconds s each, best of $rounds."
echo
echo "| pattern | request | in flight | steelyard MB/s | fio MB/s | ratio |"
echo "|---|---|---|---|---|---|"
for line in "read 131072 1" "read 131072 16" "read 1048576 4" "read 4194304 4" "randread 4096 1" \
  "randread 4096 16" "randread 4096 64" "randread 131072 16" "write 1048576 8"; do
  read -r kind request depth <<< "$line"
  best_mine=0 best_theirs=0
  for ((round = 0; round < rounds; ++round)); do
    best_mine=$(larger "$best_mine" "$("$mine" storage "$file" "$kind" "$request" "$depth" "$seconds")")
    best_theirs=$(larger "$best_theirs" "$(fio_rate "$kind" "$request" "$depth")")
  done
  awk -v k="$kind" -v r="$request" -v d="$depth" -v a="$best_mine" -v b="$best_theirs" \
    'BEGIN {printf "| %s | %d KiB | %d | %.0f | %.0f | %.2f |\n", k, r / 1024, d, a, b, (b > 0 ? a / b : 0)}'
done
