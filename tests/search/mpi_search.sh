#!/usr/bin/env bash
# mpi_search.sh STEELYARD MPIRUN: several processes print, once, what one prints; where one of them is
# lost, nothing is printed and the status is not 0.
set -u
steelyard=$1 mpirun=$2
export OMPI_MCA_plm=isolated OMPI_MCA_btl_vader_single_copy_mechanism=none ASAN_OPTIONS=detect_leaks=0
unset OMPI_COMM_WORLD_SIZE PMI_SIZE
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
cat > job.toml <<'JOB'
name = "four cards"
model.config = "gpt2"
train.sequence_length = 512
train.global_batch = 16
parallel.context = 1
parallel.virtual_stages = 1
machine.gpu = "l40s"
machine.gpus = 4
machine.ram_gib = 128
JOB
together() { timeout 200 "$mpirun" --oversubscribe --allow-run-as-root -n 4 "$@"; }
failed() { echo "FAILED: $1"; exit 1; }

"$steelyard" search job.toml --json > one.json || failed "one process"
together "$steelyard" search job.toml --json > four.json 2> four.err || failed "four: $(cat four.err)"
cmp one.json four.json || failed "four processes give another answer"

# An error is told once.
together "$steelyard" search nothing.toml > out.txt 2> err.txt && failed "an error must be a status"
[ "$(grep -c 'steelyard: ' err.txt)" = 1 ] || failed "an error is told once: $(cat err.txt)"

# Lost before its work and amid it.
cat > big.sh <<'RANK'
if [ "$OMPI_COMM_WORLD_RANK" = 2 ]; then
  [ "$1" = first ] && kill -9 $$
  exec timeout -s KILL 1 "$2" search --model bloom-176b --machine dgx-h100 --nodes 64 --plan-all \
    --set train.sequence_length=2048 --set train.global_batch=1536 --set framework=megatron --json
fi
exec "$2" search --model bloom-176b --machine dgx-h100 --nodes 64 --plan-all \
  --set train.sequence_length=2048 --set train.global_batch=1536 --set framework=megatron --json
RANK
for when in first amid; do
  timeout 120 "$mpirun" --oversubscribe --allow-run-as-root -n 4 sh big.sh $when "$steelyard" \
    > out.txt 2> err.txt
  status=$?
  [ $status -ne 0 ] && [ $status -ne 124 ] || failed "lost $when: status $status"
  [ -s out.txt ] && failed "lost $when: an answer was printed"
done
echo passed
