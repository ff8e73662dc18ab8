#!/usr/bin/env python3
"""Legal layouts per second of `steelyard search`, elapsed and by processor time, GPT-3 175B.

Usage: bench/search_rate.py PROGRAM [--nodes 64] [--batch 1536] [--machine dgx-h100] [--catalog catalog]
[--plan-all] [--fixed KEY=VALUE ...]: the text's last line says how many were planned and how many bounds
ruled out; what is refused (no framework's layout) is told apart. All keys that can be are free but the precision.
"""

import argparse
import json
import pathlib
import re
import resource
import subprocess
import tempfile
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--nodes", default="64")
    parser.add_argument("--batch", type=int, default=1536)
    parser.add_argument("--machine", default="dgx-h100")
    parser.add_argument("--catalog")
    parser.add_argument("--plan-all", action="store_true")
    parser.add_argument("--fixed", nargs="*", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    job = {
        "name": "gpt3-175b",
        "model": {"config": {"model_type": "gpt2", "n_embd": 12288, "n_layer": 96, "n_head": 96,
                             "n_positions": 2048, "vocab_size": 51200}},
        "framework": "megatron",
        "machine": {"name": given.machine, "nodes": int(given.nodes.split(".")[0])},
        "train": {"sequence_length": 2048, "global_batch": given.batch},
        "data": {"kind": "tokens"},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "job.json"
        path.write_text(json.dumps(job))
        command = [given.program, "search", str(path), "--nodes", given.nodes]
        command += ["--catalog", given.catalog] if given.catalog else []
        command += ["--plan-all"] if given.plan_all else []
        for setting in given.fixed:
            command += ["--set", setting]
        begun = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    elapsed = time.monotonic() - begun
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = usage.ru_utime + usage.ru_stime
    line = done.stdout.strip().splitlines()[-1]
    planned, ruled_out, refused = (int(n.replace(",", "")) for n in re.findall(r"[0-9][0-9,]*", line))
    layouts = planned + ruled_out
    print(done.stdout)
    print(f"{layouts} legal layouts ({refused} refused) in {elapsed:.2f} s: {layouts / elapsed:.0f} per second; "
          f"{spent:.2f} s of processor time: {layouts / spent:.0f} per second and core")


if __name__ == "__main__":
    main()
