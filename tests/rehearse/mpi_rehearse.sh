#!/usr/bin/env bash
# mpi_rehearse.sh STEELYARD MPIRUN: several processes take their steps together and report once; a
# refusal, a fault, a signal to one is that of all; a process that is killed or frozen ends all.
set -u
steelyard=$1 mpirun=$2
export OMPI_MCA_plm=isolated OMPI_MCA_btl_vader_single_copy_mechanism=none ASAN_OPTIONS=detect_leaks=0
export STEELYARD=$steelyard
unset OMPI_COMM_WORLD_SIZE PMI_SIZE PMIX_RANK
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
mkdir data
for i in $(seq 1 22); do head -c 5000 /dev/zero > "data/$i.raw"; done
together() { timeout 100 "$mpirun" --oversubscribe --allow-run-as-root -n 4 "$@" > out 2>> err; }
failed() { echo "FAILED: $1"; head -50 out err; exit 1; }
path="--data data --format raw --record-bytes 0 --batch 2 --workers 1 --depth 2"
paced="$path --step-time 0.02"

: > err
together "$steelyard" rehearse $paced --accelerators 2 --seconds 1 --json || failed "four"
python3 - out <<'CHECK' || failed "four: the report"
import json, sys
r = json.load(open(sys.argv[1]))
c = r["crew"]
ranks = c["ranks"]
assert len(ranks) == 4 and c["hosts"] == 1, c
assert r["setting"]["accelerators"] == 8 and r["setting"]["workers"] == 4, r["setting"]
assert c["steps"] > 5 and r["samples"] == c["steps"] * 8 * 2, (c["steps"], r["samples"])
assert r["end"] == "time", r["end"]
assert 0 < r["utilization_least"] <= 1
CHECK
together "$steelyard" rehearse $paced --seconds 0.5 || failed "text"
[ "$(grep -c '4 processes on 1 host' out)" = 1 ] || failed "the report is printed once"

# A rank that cannot: its word, once, and the status.
cat > one_without.sh <<'RANK'
data=data
[ "$OMPI_COMM_WORLD_RANK" = 3 ] && data=nowhere
exec "$STEELYARD" rehearse "$@" --data $data
RANK
: > err
together sh one_without.sh --format raw --record-bytes 0 && failed "a refusal is a status"
[ "$(grep -c 'rank 3 on .*nowhere' err)" = 1 ] || failed "a refusal is told once, with its rank"
[ -s out ] && failed "a refusal prints no report"

# One that all have alike needs no rank.
: > err
together "$steelyard" rehearse --data nowhere && failed "an error is a status"
[ "$(grep -c 'steelyard: nowhere' err)" = 1 ] || failed "an error of all is told once, without rank"

# Records that vanish once it runs: when it says what memory it takes, all have opened their data.
began() { for i in $(seq 300); do grep -q '^takes' err && break; sleep 0.1; done; }
: > err
{ began; sleep 0.3; rm -f data/5.raw; } &
timeout 100 "$mpirun" --oversubscribe --allow-run-as-root -n 3 "$steelyard" rehearse $paced \
  --seconds 60 > out 2>> err && failed "a fault is a status"
wait
grep -q 'ended by fault' out && grep -q '5.raw' out || failed "a fault of one ends all"
head -c 5000 /dev/zero > data/5.raw

# SIGTERM to mpirun, as Ctrl-C does it: all end in order. (mpirun kills after a second.)
: > err
"$mpirun" --oversubscribe --allow-run-as-root -n 4 "$steelyard" rehearse $paced --seconds 90 --json \
  > out 2>> err & pid=$!
began
kill -TERM $pid
for i in $(seq 60); do kill -0 $pid 2> /dev/null || break; sleep 0.5; done
kill -0 $pid 2> /dev/null && { kill -9 $pid; failed "SIGTERM: still there"; }
wait $pid

# One process: a signal to it ends all in order, with a report.
cat > signal.sh <<'RANK'
[ "$OMPI_COMM_WORLD_RANK" = "$1" ] && { until grep -q '^takes' err; do sleep 0.1; done; sleep 1; kill -$2 $$; } &
shift 2
exec "$STEELYARD" rehearse "$@"
RANK
: > err
together sh signal.sh 2 INT $paced --seconds 60 || failed "SIGINT to one"
grep -q 'ended by signal' out || failed "SIGINT to one ends all in order"

# Killed, and frozen: an error, no report, no hang.
for how in KILL STOP; do
  : > err
  together sh signal.sh 1 $how $paced --seconds 60 --patience 3
  status=$?
  [ $status -ne 0 ] && [ $status -ne 124 ] || failed "$how: status $status"
  [ -s out ] && failed "$how: a report was printed"
done
grep -q 'rank 1 on .*no word for' err || failed "STOP: the lost process is named"
echo passed
