#!/usr/bin/env python3
"""Make cases of the rows of fms-acceleration's recorded benchmarks that no other case file holds.

    python3 validation/fms_unseen_cases.py CLONE-OF-FMS-ACCELERATION > cases.json

A row is like one that fms_acceleration.json holds (same framework configuration, model and method)
but for its number of GPUs and its batch: the job is that row's with these two changed. Rows of
another kind than any held one, and those of mixtures of experts (which need a mean length that the
row does not print), are left out.
"""
import collections
import copy
import csv
import io
import json
import pathlib
import re
import subprocess
import sys

HELD = pathlib.Path(__file__).resolve().parent / "cases" / "fms_acceleration.json"
FILES = ("a100_80gb", "a100_80gb_granite", "a100_80gb_liger")
MIB = 1 << 20


def rows_of(clone, file):
    """line number -> row"""
    text = subprocess.run(
        ["git", "-C", clone, "show", f"HEAD:scripts/benchmarks/refs/{file}.csv"],
        capture_output=True, text=True, check=True).stdout
    return {number + 2: row for number, row in enumerate(csv.DictReader(io.StringIO(text)))}


def held():
    """file -> line number -> case"""
    cases = collections.defaultdict(dict)
    for case in json.loads(HELD.read_text())["cases"]:
        match = re.search(r"refs/(\S+)\.csv line (\d+)", case["source"]["where"])
        cases[match[1]][int(match[2])] = case
    return cases


def kind(row):
    return row["framework_config"], row["model_name_or_path"], row["peft_method"]


def nearest(row, rows, cases):
    """The held line of this kind with as many GPUs (or several, as this one) and the nearest batch."""
    gpus, batch = int(row["num_gpus"]), int(row["per_device_train_batch_size"])
    alike = [line for line in cases if kind(rows[line]) == kind(row)]
    same = [line for line in alike if int(rows[line]["num_gpus"]) == gpus] or [
        line for line in alike if (int(rows[line]["num_gpus"]) > 1) == (gpus > 1)]
    return min(same, default=None, key=lambda line: abs(
        int(rows[line]["per_device_train_batch_size"]) - batch))


def case_of(file, line, row, sibling_row, sibling):
    gpus, batch = int(row["num_gpus"]), int(row["per_device_train_batch_size"])
    name = f"{sibling['id'].rsplit('-g', 1)[0]}-g{gpus}-b{batch}"
    job = copy.deepcopy(sibling["job"])
    job["name"] = name
    job["train"].update(micro_batch=batch, global_batch=batch * gpus)
    job["parallel"]["data"] = job["machine"]["gpus"] = gpus
    peak = row["mem_peak_torch_mem_alloc_in_bytes"]
    measured = {"fits": bool(peak)}
    if peak:
        measured["vram_peak_allocated"] = int(float(peak))
        measured["vram_steady_allocated"] = int(float(row["mem_torch_mem_alloc_in_bytes"]))
        if "vram_peak_device_used" in sibling["measured"]:
            first = float(sibling_row["mem_nvidia_mem_reserved"]) * MIB
            read = float(row["mem_nvidia_mem_reserved"]) * MIB
            measured["vram_peak_device_used"] = int(
                read + sibling["measured"]["vram_peak_device_used"] - first)
        if "tokens_per_second_per_gpu" in sibling["measured"]:
            measured["tokens_per_second_per_gpu"] = float(row["train_tokens_per_second"])
    where = f"scripts/benchmarks/refs/{file}.csv"
    url = sibling["source"]["url"].split("#")[0]
    return {"id": name, "job": job, "measured": measured, "confidence": sibling["confidence"],
            "assumptions": [f"the job of {sibling['id']} with {gpus} GPUs and a micro-batch of {batch}",
                            *sibling["assumptions"]],
            "source": {"where": f"foundation-model-stack/fms-acceleration {where} line {line}",
                       "url": f"{url}#L{line}"}}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    cases = []
    for file, known in held().items():
        if file not in FILES:
            continue
        rows = rows_of(sys.argv[1], file)
        for line, row in rows.items():
            if line in known or not row["mem_nvidia_mem_reserved"]:
                continue
            sibling = nearest(row, rows, known)
            if sibling is not None:
                cases.append(case_of(file, line, row, rows[sibling], known[sibling]))
    json.dump({"schema": "steelyard.cases/1", "source": {
        "title": "fms-acceleration's benchmarks: rows that no rule was made with",
        "where": "foundation-model-stack/fms-acceleration, scripts/benchmarks/refs",
        "url": "https://github.com/foundation-model-stack/fms-acceleration"}, "cases": cases},
        sys.stdout, indent=1)


if __name__ == "__main__":
    main()
