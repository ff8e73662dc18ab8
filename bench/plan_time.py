#!/usr/bin/env python3
"""Processor time of `steelyard plan` as a whole process: the best of some runs, by job.

Llama-3.1-405B over tensor 8, pipeline 16, context 2 and data 64, by framework, schedule and number
of micro-batches, each where it fits (recomputing) and where it does not (then several more plans
are made for the advice). Usage: bench/plan_time.py PROGRAM [--runs 20] [--catalog catalog]
"""

import argparse
import json
import pathlib
import resource
import subprocess
import tempfile


DOES_NOT_FIT = 3  # the plan is printed all the same


def job(framework, schedule, micro_batches, fits):
    return {
        "model": {"config": "llama-3.1-405b"},
        "framework": framework,
        "machine": {"name": "dgx-h100", "nodes": 2048, "gpus": 8, "ram_gib": 16384,
                    "network_gbps_per_gpu": 400},
        "train": {"micro_batch": 1, "gradient_accumulation": micro_batches,
                  "sequence_length": 8192, "precision": "bf16-mixed", "optimizer": "adamw",
                  "recompute": "full" if fits else "none"},
        "parallel": {"tensor": 8, "pipeline": 16, "context": 2, "data": 64, "schedule": schedule,
                     "virtual_stages": 7 if schedule == "interleaved" else 1,
                     "sharding": "zero1" if framework == "megatron" else "fsdp"},
    }


def spent():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def best(command, runs):
    times = []
    for _ in range(runs):
        before = spent()
        status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if status not in (0, DOES_NOT_FIT):
            raise SystemExit(f"{' '.join(command)}: status {status}")
        times.append(spent() - before)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--catalog")
    given = parser.parse_args()
    options = ["--catalog", given.catalog] if given.catalog else []
    print("milliseconds of processor time, best of", given.runs)
    print(f"{'framework':12}{'schedule':14}{'micro-batches':>14}{'fits':>8}{'does not':>10}")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "job.json"
        for framework in ("megatron", "torchtitan"):
            for schedule in ("1f1b", "interleaved"):
                # Interleaved chunks take groups of as many micro-batches as there are stages.
                for count in (1, 16, 64, 256) if schedule == "1f1b" else (16, 64, 256):
                    times = []
                    for fits in (True, False):
                        path.write_text(json.dumps(job(framework, schedule, count, fits)))
                        command = [given.program, "plan", str(path), "--json", *options]
                        times.append(1000 * best(command, given.runs))
                    print(f"{framework:12}{schedule:14}{count:14}{times[0]:8.1f}{times[1]:10.1f}",
                          flush=True)


if __name__ == "__main__":
    main()
