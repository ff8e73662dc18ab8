#!/usr/bin/env python3
"""Published layouts of large runs against what `steelyard search` finds for their machine.

For each run of validation/published_layouts.toml: the plan of the published layout, the search over
tensor and pipeline ranks, virtual stages, micro-batch and recomputation, and how much longer the
published layout's step is than the best one's. Usage:
bench/published_layouts.py PROGRAM [--catalog catalog] [--only TEXT] prints a table in Markdown.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import tomllib

FREE = {"tensor": "parallel.tensor", "pipeline": "parallel.pipeline",
        "virtual_stages": "parallel.virtual_stages", "micro_batch": "train.micro_batch",
        "recompute": "train.recompute"}
NEAR = 1.10


def model_of(run):
    if "model" in run:
        return {"config": run["model"]}
    if "gpt" in run:
        return {"config": {"model_type": "gpt2", "n_positions": 2048, "vocab_size": 51200, **run["gpt"]}}
    if "neox" in run:
        return {"config": {"model_type": "gpt_neox", "max_position_embeddings": 2048, "rotary_pct": 0.25,
                           **run["neox"]}}
    return {"config": {"model_type": "mpt", **run["mpt"]}}


def job_of(run):
    job = {
        "name": run["name"],
        "model": model_of(run),
        "framework": run.get("framework", "megatron"),
        "machine": {"name": run.get("machine", "dgx-a100-80gb"), "nodes": run["nodes"]},
        "train": {"sequence_length": run.get("sequence", 2048), "global_batch": run["batch"],
                  "precision": "fp16-mixed", "optimizer": "adam",
                  # Until 2022 Megatron-LM had no flash attention.
                  "attention": run.get("attention", "math")},
        "parallel": {"context": 1, "sharding": "none", "sequence_parallel": False},
        "data": {"kind": "tokens"},
    }
    for key, value in run.get("set", {}).items():
        table, name = key.split(".")
        job[table][name] = value
    return job


def settings(layout):
    found = [f"{FREE[key]}={value}" for key, value in layout.items()]
    if layout.get("virtual_stages", 1) > 1:
        found.append("parallel.schedule=interleaved")
    return found


def free_of(run):
    """What the run's software left to choose."""
    return [name for key, name in FREE.items() if key not in run.get("fixed", [])]


def words(pairs, run):
    kept = dict(pairs)
    return " ".join(str(kept.get(name, run["layout"][key])) for key, name in FREE.items())


def run_program(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        return None, done.stderr.strip().splitlines()[0] if done.stderr.strip() else "failed"
    return json.loads(done.stdout), None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--catalog")
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parent.parent
    runs = tomllib.loads((root / "validation/published_layouts.toml").read_text())["run"]
    more = ["--catalog", given.catalog] if given.catalog else []
    print("| run | GPUs | published: TP PP VP MB recompute | step | VRAM | fits | best found | step | "
          "published / best |")
    print("|---|---|---|---|---|---|---|---|---|")
    for run in runs:
        if given.only not in run["name"]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "job.json"
            path.write_text(json.dumps(job_of(run)))
            sets = [word for one in settings(run["layout"]) for word in ("--set", one)]
            plan, error = run_program([given.program, "plan", str(path), "--json", *sets, *more])
            if plan is None:
                print(f"| {run['name']} | | {error} |", flush=True)
                continue
            search, error = run_program([given.program, "search", str(path), "--json", *sets,
                                         "--free", *free_of(run), *more])
        if search is None:
            print(f"| {run['name']} | | {error} |", flush=True)
            continue
        place = search["places"][0]
        published = plan["pace"]["step"]
        most = plan["vram"]["peak_device_used"] / 2**30
        fits = "yes" if plan["fits"] else "no"
        gpus = run["nodes"] * 8
        own = " ".join(str(run["layout"][key]) for key in FREE)
        if not place["found"]:
            print(f"| {run['name']} | {gpus:,} | {own} | {published:.2f} s | {most:.1f} GiB | {fits} | "
                  f"nothing fits | | |", flush=True)
            continue
        best = place["found"][0]
        step = best["plan"]["step"]
        near = published / step
        print(f"| {run['name']} | {gpus:,} | {own} | {published:.2f} s | {most:.1f} GiB | {fits} | "
              f"{words(best['set'], run)} | {step:.2f} s | {near:.2f}{'' if near <= NEAR else ' (miss)'} |",
              flush=True)


if __name__ == "__main__":
    main()
