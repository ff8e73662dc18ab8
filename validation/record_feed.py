#!/usr/bin/env python3
"""Records how many samples per second PyTorch's DataLoader gives, as cases that `steelyard validate` compares with its plans.

    record_feed.py --list                        the runs, without torch
    record_feed.py --out FOLDER --photographs FOLDER --python NAME=PROGRAM [--only GLOB] [--repeat N]

Runs stand in record_feed_jobs.toml (as record_ram_jobs.toml: a job, and `more` for what a job has no key for). A run
takes batches and does nothing with them. What the machine can do is measured in the same process, in turn with the
loader, and becomes part of the job: seconds of one sample on one core (data.decode_seconds; reading it from the page
cache is in them) and, for runs that read past the page cache, what the storage gives (machine.storage_gb_per_s).
Photographs are *.jpg from which the pictures of JPEG folders are cut.

The machine may be busy with other work: the measuring program asks for the largest share of the processors
(/proc/self/autogroup, nice -20, as root), runs are short, and of several the best is taken, of the loader's rate and of the
machine's own speed alike. FOLDER receives rows.json (every repetition) and cases.json (schema steelyard.cases/1).

Exit status: 0 all that ran was recorded; 1 a run failed; 2 bad arguments.
Needs Python 3.11; the interpreters that run jobs need torch and Pillow.
"""
import argparse
import contextlib
import fnmatch
import itertools
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
RUN_SECONDS = 600
FILES = 96          # distinct pictures of a folder
ALONE_SECONDS = 0.6  # of one look at the speed of a core
LOADER_SECONDS = 2.0


# --- in the process that measures (the interpreter of the run) ----------------------------------------------------

def ask_for_the_processors():
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/autogroup").write_text("-20", encoding="ascii")
    with contextlib.suppress(OSError):
        os.nice(-20)


def make_pictures(folder, size, photographs):
    """Crops of photographs at many places and scales, so that files differ as those of a real folder do."""
    from PIL import Image

    folder.mkdir(parents=True)
    height, width = size
    sources = [Image.open(file).convert("RGB") for file in sorted(photographs.glob("*.jpg"))]
    pick = random.Random(7)
    for i in range(FILES):
        source = sources[i % len(sources)]
        part = min(source.width / width, source.height / height) * pick.uniform(0.5, 1.0)
        wide, high = int(part * width), int(part * height)
        left, top = pick.randint(0, source.width - wide), pick.randint(0, source.height - high)
        cut = source.crop((left, top, left + wide, top + high)).resize((width, height))
        cut.save(folder / f"{i:04d}.jpg", quality=90)


class Records:
    """data.kind = "npz": one file of plain numbers per sample, read past the page cache where `cold`."""

    def __init__(self, folder, samples, cold):
        self.files, self.samples, self.cold = sorted(folder.glob("*.bin")), samples, cold

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        import numpy
        import torch

        file = self.files[index % len(self.files)]
        if not self.cold:
            return torch.from_numpy(numpy.fromfile(file, dtype=numpy.uint8)), index % 1000
        with open(file, "rb") as source:
            content = numpy.fromfile(source, dtype=numpy.uint8)
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return torch.from_numpy(content), index % 1000


def dataset_of(job, data):
    import record_ram_steps as steps

    if job["data"]["kind"] == "npz":
        return Records(data / "records", job["data"]["samples"], job.get("cold", False))
    return steps.dataset_of(job, data)


def prepare(job, data):
    if job["data"]["kind"] == "tokens":
        import numpy

        numpy.random.default_rng(0).integers(0, 1000, 4_000_000, dtype=numpy.uint16).tofile(data / "tokens.bin")
    if job["data"]["kind"] == "npz":
        (data / "records").mkdir()
        size = int(job["data"]["bytes_per_sample"])
        for i in range(job["records"]):
            (data / "records" / f"{i:04d}.bin").write_bytes(os.urandom(size))
        os.sync()
    if job["data"]["kind"] == "jpeg":
        make_pictures(data / "pictures", job["pictures"], pathlib.Path(os.environ["PHOTOGRAPHS"]))


def seconds_of_one(dataset, order):
    """Of one sample in one process, without a loader."""
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < ALONE_SECONDS:
        dataset[next(order)]
        count += 1
    return (time.perf_counter() - begin) / count


def storage_rate(folder):
    """Bytes per second of four readers of files that the page cache does not hold."""
    from concurrent.futures import ThreadPoolExecutor

    def read(file):
        with open(file, "rb", buffering=0) as source:
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            total = len(source.read())
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return total

    begin = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        total = sum(pool.map(read, sorted(folder.iterdir())))
    return total / (time.perf_counter() - begin)


def loader_rate(job, dataset):
    import torch

    keys, batch = job["data"], job["train"]["micro_batch"]
    workers = keys["workers"]
    more = {"prefetch_factor": keys["prefetch"]} if workers else {}
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, num_workers=workers, drop_last=True,
                                         **more)
    skipped = workers * keys.get("prefetch", 2) + 1
    count, begin = 0, None
    for number, _ in enumerate(loader):
        now = time.perf_counter()
        if number == skipped:
            begin = now
        elif number > skipped:
            count += 1
            if now - begin > LOADER_SECONDS and count >= 4 * max(1, workers):
                break
    return count * batch / (now - begin)


def measure(job, data, repeat):
    ask_for_the_processors()
    import torch

    torch.set_num_threads(1)
    dataset = dataset_of(job, data)
    warm = Records(data / "records", job["data"]["samples"], False) if job.get("cold") else dataset
    order = itertools.cycle(random.Random(3).sample(range(len(dataset)), min(1000, len(dataset))))
    rows = []
    for _ in range(repeat):
        row = {"alone": seconds_of_one(warm, order)}
        if job.get("cold"):
            row["storage"] = storage_rate(data / "records")
        row["rate"] = loader_rate(job, dataset)
        row["alone_after"] = seconds_of_one(warm, order)
        rows.append(row)
    print(json.dumps({"rows": rows, "bytes": mean_size(data)}))


def mean_size(data):
    sizes = [file.stat().st_size for file in (data / "pictures").glob("*.jpg")]
    return sum(sizes) / len(sizes) if sizes else None


# --- in the process that starts them ------------------------------------------------------------------------------

def case_of(run, found):
    rows, job = found["rows"], run["job"]
    job["data"]["decode_seconds"] = round(min(min(row["alone"], row["alone_after"]) for row in rows), 9)
    if found["bytes"]:
        job["data"]["bytes_per_sample"] = round(found["bytes"])
    if "storage" in rows[0]:
        job["machine"]["storage_gb_per_s"] = round(max(row["storage"] for row in rows) / 1e9, 4)
    return {"id": "recorded-feed/" + run["id"], "job": job,
            "measured": {"loader_samples_per_second": round(max(row["rate"] for row in rows), 2)},
            "confidence": "high", "assumptions": run["more"].get("assumptions", [])}


def run_one(run, arguments):
    data = pathlib.Path(tempfile.mkdtemp(prefix="record_feed_", dir=arguments.scratch))
    job_file = data / "job.json"
    job_file.write_text(json.dumps({**run["job"], **run["more"]}), encoding="utf-8")
    python = arguments.python[run["python"]]
    environment = {**os.environ, "PHOTOGRAPHS": str(arguments.photographs or ""), "OMP_NUM_THREADS": "1",
                   "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run([python, __file__, "--measure", str(job_file), str(data), str(arguments.repeat)],
                              capture_output=True, text=True, check=False, env=environment, timeout=RUN_SECONDS)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def record_all(runs, arguments):
    import record_ram

    software = {name: record_ram.software_of(python) for name, python in arguments.python.items()}
    out, cases, rows, failures = pathlib.Path(arguments.out), [], [], 0
    for run in runs:
        found = run_one(run, arguments)
        if "failed" in found:
            failures += 1
            print(f"{run['id']}: FAILED: {found['failed']}", flush=True)
            continue
        case = case_of(run, found)
        print(run["id"], case["measured"]["loader_samples_per_second"], case["job"]["data"]["decode_seconds"],
              [round(row["rate"], 1) for row in found["rows"]], flush=True)
        cases.append(case)
        rows.append({"id": run["id"], **found})
        record_ram.write(out / "rows.json", {"schema": "steelyard.recorded-feed/1", "runs": rows})
        record_ram.write(out / "cases.json", {"schema": "steelyard.cases/1", "source": {
            "title": "recorded with validation/record_feed.py on " + record_ram.machine_text(),
            "where": "software: " + json.dumps(software), "url": ""}, "cases": cases})
    return 1 if failures else 0


def main(argv=None):
    if sys.argv[1:2] == ["--measure"]:
        job, data = json.loads(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")), pathlib.Path(sys.argv[3])
        prepare(job, data)
        measure(job, data, int(sys.argv[4]))
        return 0
    import record_ram

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default=str(HERE / "record_feed_jobs.toml"), help="the list of runs")
    parser.add_argument("--only", default="*", metavar="GLOB", help="runs whose id fits")
    parser.add_argument("--list", action="store_true", help="print the runs and stop")
    parser.add_argument("--out", metavar="FOLDER", help="where the results go")
    parser.add_argument("--scratch", metavar="FOLDER", help="where the files of a run lie for a while")
    parser.add_argument("--photographs", metavar="FOLDER", type=pathlib.Path)
    parser.add_argument("--repeat", type=int, default=5, help="of each run; the best counts")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PROGRAM")
    arguments = parser.parse_args(argv)
    arguments.python = dict(item.split("=", 1) for item in arguments.python)
    if not (arguments.list or arguments.out):
        parser.error("--out FOLDER is needed (or --list)")
    runs = [run for run in record_ram.read_runs(arguments.runs) if fnmatch.fnmatch(run["id"], arguments.only)]
    if arguments.list:
        for run in runs:
            print(run["id"], run["python"], json.dumps(run["job"]))
        return 0
    return record_all([run for run in runs if run["python"] in arguments.python], arguments)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
