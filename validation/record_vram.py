#!/usr/bin/env python3
"""Records what real training runs take of a GPU, as cases that `steelyard validate` compares with its plans.

    record_vram.py --list                        the jobs, without torch
    record_vram.py --out FOLDER                  runs every job on the GPU, each in a process of its own
    record_vram.py --out FOLDER --only GLOB      those whose id fits
    record_vram.py --out FOLDER --device cpu --tiny
                                                 the same loops over tiny models on the CPU: live bytes of storages
    record_vram.py --out FOLDER --device fake --guard libfakecuda.so
                                                 the same loops at full size over fake CUDA tensors (no GPU, no data)
    record_vram.py --jobs-only --out FOLDER      writes the job files and runs nothing

FOLDER receives jobs/ID.json (a job file each), cases.json (schema steelyard.cases/1, only of runs on a GPU does it hold
measurements of a card) and phases.json (schema steelyard.recorded-phases/1: the counters of every phase).

Exit status: 0 all that ran was recorded; 1 a run failed; 2 bad arguments; 4 no GPU.
Needs Python 3.11 and, to run anything, torch, transformers and what a job names (peft, bitsandbytes, timm, diffusers);
pynvml for the bytes that the driver counts. Models have random weights: nothing is fetched.
"""
import argparse
import fnmatch
import json
import pathlib
import platform
import subprocess
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
NO_GPU = 4
STEPS = 3


def read_jobs(file, tiny):
    """{id: job}: the tables of a job file, and `tiny` sizes where asked for."""
    with open(file, "rb") as source:
        table = tomllib.load(source)
    jobs = {}
    for entry in table["job"]:
        family = table["family"][entry["family"]]
        config = dict(family["config"])
        train = json.loads(json.dumps(entry["train"]))
        if tiny:
            config.update(family["tiny"])
            if "image_size" in train:
                train["image_size"], train["micro_batch"] = [64, 64], 2
            else:
                train["sequence_length"], train["micro_batch"] = 32, 2
        framework = entry.get("framework", "timm" if config.get("model_type", "").startswith("timm") else "pytorch")
        jobs[entry["id"]] = {"name": entry["id"], "framework": framework, "model": {"config": config}, "train": train}
    return jobs, table["gpus"]


def machine_of(device, gpus):
    """The [machine] of a recorded job: the card by its catalogue id, its memory as the driver counts it."""
    if device != "cuda":
        return {"gpu": "a100-sxm-80gb", "gpus": 1, "ram_gib": 256}
    import torch

    name = torch.cuda.get_device_name()
    for words, card in gpus:
        if words in name:
            total = torch.cuda.get_device_properties(0).total_memory
            return {"gpu": card, "gpus": 1, "ram_gib": 256, "vram_gib": round(total / 2**30, 3)}
    sys.exit(f"record_vram: no id of the catalogue for the card \"{name}\": add one to gpus in record_jobs.toml")


def measured_of(phases):
    """The quantities of a case from the counters of a run on a GPU."""
    steps = [p for p in phases if p["step"] >= 0]
    last = max(p["step"] for p in steps)
    measured = {
        "vram_peak_allocated": max(p["allocated_peak"] for p in phases),
        "vram_peak_reserved": max(p["reserved_peak"] for p in phases),
        "vram_steady_allocated": [p for p in steps if p["step"] == last][-1]["allocated"],
        "fits": True,
    }
    if all("device_used" in p for p in phases):
        measured["vram_peak_device_used"] = max(p["device_used"] for p in phases)
    return measured


def case_of(name, job, phases, device):
    case = {"id": "recorded/" + name, "job": job, "confidence": "high", "assumptions": [
        "validation/record_steps.py is the loop; three optimizer steps, the peaks of all of them"]}
    if device == "cuda":
        case["measured"] = measured_of(phases)
        case["assumptions"].append("device-used is NVML's figure of the card less what it showed before the run")
    else:
        # the counter is of storages at the operators: neither a caching allocator nor a card
        case["measured"] = {}
        case["assumptions"].append(f"no card: storages counted on the device '{device}', see phases.json")
    return case


def software():
    """Versions, for the source of the cases."""
    found = {"python": platform.python_version()}
    from importlib import metadata

    for package in ("torch", "transformers", "peft", "bitsandbytes", "timm", "torchvision", "diffusers"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_one(job, arguments):
    sys.path.insert(0, str(HERE))
    import record_steps

    try:
        if arguments.device == "fake":
            phases = record_steps.record_fake(job, STEPS, arguments.guard)
        else:
            phases = record_steps.record(job, arguments.device, STEPS)
    except record_steps.CannotRun as missing:
        return {"skipped": str(missing)}
    except Exception as failure:
        text = str(failure).strip().split("\n")[0]
        return {"failed": f"{type(failure).__name__}: {text}"}
    return {"phases": phases}


def run_apart(name, arguments):
    """In a process of its own: a fresh context and a fresh allocator."""
    command = [sys.executable, str(HERE / "record_vram.py"), "--run", name, "--device", arguments.device,
               "--jobs", arguments.jobs]
    command += ["--tiny"] if arguments.tiny else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        tail = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"failed": f"exit status {done.returncode}: {tail}"}
    return json.loads(lines[-1])


def has_gpu():
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def record_all(jobs, machine, arguments):
    out = pathlib.Path(arguments.out)
    cases, rows, failures = [], [], 0
    for name, job in jobs.items():
        job["machine"] = machine
        write(out / "jobs" / (name + ".json"), job)
        if arguments.jobs_only:
            continue
        result = run_apart(name, arguments) if arguments.device == "cuda" else run_one(job, arguments)
        if "phases" not in result:
            failures += "failed" in result
            print(f"{name}: {'skipped' if 'skipped' in result else 'FAILED'}: {next(iter(result.values()))}", flush=True)
            continue
        phases = result["phases"]
        print(f"{name}: peak {max(p['allocated_peak'] for p in phases)} bytes", flush=True)
        cases.append(case_of(name, job, phases, arguments.device))
        rows.append({"id": name, "job": job, "phases": phases})
    if arguments.jobs_only:
        return 0
    where = f"record_vram.py --device {arguments.device}" + (" --tiny" if arguments.tiny else "")
    write(out / "phases.json", {"schema": "steelyard.recorded-phases/1", "device": arguments.device,
                                "software": software(), "runs": rows})
    write(out / "cases.json", {"schema": "steelyard.cases/1", "source": {
        "title": "recorded with validation/record_vram.py: " + json.dumps(software()), "where": where, "url": ""},
        "cases": cases})
    return 1 if failures else 0


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default=str(HERE / "record_jobs.toml"), help="the list of jobs")
    parser.add_argument("--only", default="*", metavar="GLOB", help="jobs whose id fits")
    parser.add_argument("--list", action="store_true", help="print the jobs and stop")
    parser.add_argument("--jobs-only", action="store_true", help="write the job files and run nothing")
    parser.add_argument("--out", metavar="FOLDER", help="where the results go")
    parser.add_argument("--device", choices=["cuda", "cpu", "fake"], default="cuda")
    parser.add_argument("--guard", metavar="LIBRARY", help="for --device fake: registers a device guard for CUDA")
    parser.add_argument("--tiny", action="store_true", help="tiny models")
    parser.add_argument("--run", metavar="ID", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.device == "fake" and not arguments.guard and not arguments.jobs_only:
        parser.error("--device fake needs --guard")
    if not (arguments.list or arguments.run or arguments.out):
        parser.error("--out FOLDER is needed (or --list)")
    return arguments


def main(argv=None):
    arguments = parse(argv)
    jobs, gpus = read_jobs(arguments.jobs, arguments.tiny)
    if arguments.run:
        print(json.dumps(run_one(jobs[arguments.run], arguments)))
        return 0
    jobs = {name: job for name, job in jobs.items() if fnmatch.fnmatch(name, arguments.only)}
    if arguments.list:
        for name, job in jobs.items():
            print(name, json.dumps(job["train"]))
        return 0
    if not arguments.jobs_only and arguments.device == "cuda" and not has_gpu():
        print("record_vram: no GPU that torch can use is here; --device cpu --tiny runs the same loops", file=sys.stderr)
        return NO_GPU
    device = "cpu" if arguments.jobs_only else arguments.device
    return record_all(jobs, machine_of(device, gpus), arguments)


if __name__ == "__main__":
    sys.exit(main())
