#!/usr/bin/env bash
# Memory bandwidth of the probe beside likwid-bench's kernels: both in turn, ROUNDS times, the best
# of each. Prints a Markdown table; the last column is the probe's rate over the better kernel's.
#   bench/against_likwid.sh [BUILD_FOLDER] [ROUNDS] [MEGABYTES]
set -euo pipefail
build=${1:-build/release}
rounds=${2:-5}
megabytes=${3:-1000}
mine=$build/probe_rates
[ -x "$mine" ] || { echo "build it first: ninja -C $build probe_rates" >&2; exit 1; }
command -v likwid-bench > /dev/null || { echo "likwid-bench is not installed" >&2; exit 1; }
instructions=plain
grep -qw avx2 /proc/cpuinfo && instructions=avx2
grep -qw avx512f /proc/cpuinfo && instructions=avx512

# likwid_rate KERNEL THREADS: MB/s, 0 where this likwid-bench lacks or cannot run the kernel
likwid_rate() {
  { likwid-bench -t "$1" -i 10 -w "S0:${megabytes}MB:$2" 2> /dev/null || true; } |
    awk '/^MByte\/s:/ {rate = $2} END {print rate + 0}'
}

larger() { awk -v a="$1" -v b="$2" 'BEGIN {print (b > a ? b : a)}'; }

echo "Context: $(uname -r), $(nproc) hardware threads, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)," \
  "load average $(cut -d' ' -f1 /proc/loadavg) before, $instructions, $megabytes MB, best of $rounds."
echo
echo "| kernel | threads | steelyard MB/s | likwid-bench MB/s | its kernel | ratio |"
echo "|---|---|---|---|---|---|"
for threads in 1 $( [ "$(nproc)" -gt 1 ] && nproc ); do
  for pair in read:load_avx512,load_avx write:store_mem_avx512,store_mem_avx \
    copy:copy_mem_avx512,copy_mem_avx triad:stream_mem_avx512,stream_mem_avx_fma,stream_mem_avx; do
    kernel=${pair%%:*}
    best_mine=0 best_theirs=0 best_name=none
    for ((round = 0; round < rounds; ++round)); do
      best_mine=$(larger "$best_mine" "$("$mine" memory "$kernel" "$instructions" "$threads" "$megabytes")")
      for name in $(echo "${pair#*:}" | tr , ' '); do
        rate=$(likwid_rate "$name" "$threads")
        if awk -v a="$rate" -v b="$best_theirs" 'BEGIN {exit !(a > b)}'; then
          best_theirs=$rate best_name=$name
        fi
      done
    done
    awk -v k="$kernel" -v t="$threads" -v a="$best_mine" -v b="$best_theirs" -v n="$best_name" \
      'BEGIN {printf "| %s | %d | %.0f | %.0f | %s | %.2f |\n", k, t, a, b, n, (b > 0 ? a / b : 0)}'
  done
done
