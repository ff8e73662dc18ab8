#!/usr/bin/env python3
"""Published layouts of large runs against what `steelyard search` finds for their machine.

For each run of validation/published_layouts.toml: the plan of the published layout beside the step that was
measured, the search over what the run's software left to choose, and how much longer the published layout's
step is than the best one's. Usage:
bench/published_layouts.py PROGRAM [--catalog catalog] [--only TEXT] [--into docs/published-layouts.md]
prints the table in Markdown; --into also puts it between the two marks of that file.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import tomllib

KEYS = {"tensor": "parallel.tensor", "pipeline": "parallel.pipeline",
        "virtual_stages": "parallel.virtual_stages", "micro_batch": "train.micro_batch",
        "recompute": "train.recompute"}
SHORT = {"tensor": "TP", "pipeline": "PP", "virtual_stages": "VP", "micro_batch": "MB", "recompute": ""}
LAYERED = ["tensor", "pipeline", "virtual_stages", "micro_batch"]
NEAR = 1.10
MARKS = ("<!-- table: bench/published_layouts.py -->", "<!-- end of the table -->")
HEAD = ("| run | GPUs | published | measured | planned | VRAM | best found | step | published / best | "
        "legal layouts |\n|---|--:|---|--:|--:|--:|---|--:|--:|--:|")


ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTHING_OFFLOADED = {what: "none" for what in ("parameters", "gradients", "optimizer", "activations")}
ARGUMENTS = {"tensor": "tensor-model-parallel-size", "pipeline": "pipeline-model-parallel-size",
             "virtual_stages": "num-virtual-stages-per-pipeline-rank", "micro_batch": "micro-batch-size"}


def from_case(run):
    """The run of a measured case: its job, its layout, what was measured."""
    file, name = run["case"].split("/")
    cases = json.loads((ROOT / f"validation/cases/{file}.json").read_text())["cases"]
    case = next(one for one in cases if one["id"] == name)
    job = {**case["job"], "name": run["name"], "offload": NOTHING_OFFLOADED,
           "data": {"kind": "tokens", "workers": 2}}
    said = job["import"]["megatron"]
    seconds = case["measured"].get("step_seconds")
    gpus = job["machine"]["nodes"] * job["machine"]["gpus"]
    if seconds is None:
        rate = case["measured"]["tokens_per_second_per_gpu"]
        seconds = said["global-batch-size"] * said["seq-length"] / (rate * gpus)
    return {**run, "job": job, "nodes": job["machine"]["nodes"], "measured_seconds": seconds,
            "layout": {key: said.get(argument, 1) for key, argument in ARGUMENTS.items()}}


def model_of(run):
    if "config" in run:
        return {"config": run["config"]}
    return {"config": {"model_type": "megatron_gpt", "vocab-size": 51200, "max-position-embeddings": 2048,
                       **run["megatron"]}}


def job_of(run):
    if "job" in run:
        return run["job"]
    job = {
        "name": run["name"],
        "model": model_of(run),
        "framework": run.get("framework", "megatron"),
        "machine": {"name": run.get("machine", "dgx-a100-80gb"), "nodes": run["nodes"]},
        "train": {"sequence_length": run.get("sequence", 2048), "global_batch": run["batch"],
                  "precision": "fp16-mixed", "optimizer": "adam", "recompute": "full",
                  "attention": run.get("attention", "math")},
        "parallel": {"context": 1, "sharding": "none", "sequence_parallel": False, "virtual_stages": 1},
        "offload": NOTHING_OFFLOADED,
        "data": {"kind": "tokens", "workers": 2},
    }
    for key, value in run.get("set", {}).items():
        table, name = key.split(".")
        job[table][name] = value
    for key, value in run["layout"].items():
        table, name = KEYS[key].split(".")
        job[table][name] = value
    if job["parallel"]["virtual_stages"] > 1:
        job["parallel"]["schedule"] = "interleaved"
    return job


def measured_seconds(run):
    """Seconds of a step, or none; equation 3 of arXiv 2104.04473."""
    if "measured_seconds" in run:
        return run["measured_seconds"]
    if "measured_tflops" not in run:
        return None
    sizes, tokens = run["megatron"], run.get("sequence", 2048)
    hidden, layers = sizes["hidden-size"], sizes["num-layers"]
    vocabulary = sizes.get("vocab-size", 51200)
    flops = 96 * run["batch"] * tokens * layers * hidden**2 * (
        1 + tokens / (6 * hidden) + vocabulary / (16 * layers * hidden))
    return flops / (run["nodes"] * 8 * run["measured_tflops"] * 1e12)


def words(layout):
    """TP8 PP4 MB2 full: ones and what nobody recomputes are left out."""
    found = [f"{SHORT[key]}{layout[key]}" for key in KEYS
             if key in layout and layout[key] not in (1, "1", "none")]
    return " ".join(found) or "nothing split"


def run_program(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr.strip() or "failed: " + " ".join(command))
    return json.loads(done.stdout)


def searched(given, path, free):
    more = ["--catalog", given.catalog] if given.catalog else []
    result = run_program([given.program, "search", path, "--json", "--free", *(KEYS[key] for key in free), *more])
    return result["places"][0]


def best_of(place, run):
    """Layout and plan of the fastest that fits, or none."""
    if not place["found"]:
        return None, None
    found = dict(place["found"][0]["set"])
    layout = {**run["layout"], **{key: found[name] for key, name in KEYS.items() if name in found}}
    return layout, place["found"][0]["plan"]


def plan_of(given, path):
    """The published layout; what was not published is the best for the rest of it."""
    more = ["--catalog", given.catalog] if given.catalog else []
    plan = run_program([given.program, "plan", path, "--json", *more])
    return plan["pace"]["step"], plan["vram"]["peak_device_used"] / 2**30, plan["fits"]


def row_of(given, run, path):
    free = run.get("free", LAYERED)
    open_keys = [key for key in free if key not in run["layout"]]
    layout = run["layout"]
    step, most, fits = plan_of(given, path)
    if open_keys:
        layout, plan = best_of(searched(given, path, open_keys), run)
        if plan:
            step, most, fits = plan["step"], plan["vram_peak"] / 2**30, True
        else:
            layout = run["layout"]
    place = searched(given, path, free)
    best, plan = best_of(place, run)
    measured = measured_seconds(run)
    cells = [run["name"], f"{run['nodes'] * 8:,}", words(layout),
             f"{measured:.2f} s" if measured else "",
             f"{step:.2f} s" + (f" ({step / measured - 1:+.0%})" if measured else ""),
             f"{most:.0f} GiB" + ("" if fits else " (too large)")]
    if best is None:
        cells += ["nothing fits", "", ""]
    else:
        ratio = step / plan["step"]
        cells += [words(best), f"{plan['step']:.2f} s", f"{ratio:.2f}{'' if ratio <= NEAR and fits else ' (miss)'}"]
    cells.append(f"{place['layouts']:,}")
    return "| " + " | ".join(cells) + " |"


def put_into(file, table):
    text = file.read_text()
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    file.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--catalog")
    parser.add_argument("--only", default="")
    parser.add_argument("--into", type=pathlib.Path)
    given = parser.parse_args()
    runs = tomllib.loads((ROOT / "validation/published_layouts.toml").read_text())["run"]
    rows = [HEAD]
    print(HEAD)
    for run in runs:
        if given.only not in run["name"]:
            continue
        if "case" in run:
            run = from_case(run)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "job.json"
            path.write_text(json.dumps(job_of(run)))
            rows.append(row_of(given, run, str(path)))
        print(rows[-1], flush=True)
    if given.into:
        put_into(given.into, "\n".join(rows))


if __name__ == "__main__":
    main()
