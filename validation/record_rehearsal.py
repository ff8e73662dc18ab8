#!/usr/bin/env python3
"""Records rehearsals as cases: what `steelyard rehearse` really did beside what a plan with the probed machine says.

    record_rehearsal.py --program build/release/steelyard --probe                 the machine file, under a minute
    record_rehearsal.py --program build/release/steelyard [--only GLOB] [--repeat 2] [--seconds 3] [--fresh]
    record_rehearsal.py --list

Writes validation/machines/rehearsal-debian12.json (steelyard probe -o) and, run after run,
validation/cases/recorded_rehearsal_debian12.json (schema steelyard.cases/1): a run of the same name is replaced, others
stay, so that a long list can be recorded in pieces. Data sets are made below --data (kept there), a few MB each: JPEG of
two sizes, PNG, tar shards, sequences of tokens, npz and raw records. A job says what a person would know of its data:
number, mean and deviation of the stored bytes, size of the pictures (what `data.sizes_from` measures).

Measured are the samples per second of a rehearsal whose accelerators take what comes (the best of all runs so far: other
programs make it slower, never faster) and the most anonymous memory of its process. A run during which other programs (or the
host of a virtual machine) took more than 3 % of the processors does not count. All runs are made in turn, --repeat times over, and
added to what earlier calls measured (runs.json beside the data; --fresh forgets it), so that a long list can be recorded in
short quiet times; so is the machine file: of several probes each figure's best. --fresh after anything changed.

Everything lies in the page cache, read into it anew from the disk (how a file was written decides in pieces of which size
the kernel holds it, and that how fast it is read). Needs numpy and Pillow.

Exit status: 0 all that ran was recorded; 1 a run failed; 2 bad arguments.
"""
import argparse
import fnmatch
import io
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tarfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MACHINE = HERE / "machines" / "rehearsal-debian12.json"
CASES = HERE / "cases" / "recorded_rehearsal_debian12.json"

RAW_BYTES = 512 << 20  # more than any cache of a processor
OTHERS = 0.03  # of the processors, that other programs may take
# name, data set, workers, batches ahead, batch
RUNS = [
    ("jpeg-500x375-w1-f2-b32", "jpeg-500x375", 1, 2, 32),
    ("jpeg-500x375-w2-f2-b32", "jpeg-500x375", 2, 2, 32),
    ("jpeg-500x375-w2-f4-b64", "jpeg-500x375", 2, 4, 64),
    ("jpeg-1024x768-w1-f2-b32", "jpeg-1024x768", 1, 2, 32),
    ("jpeg-1024x768-w2-f4-b32", "jpeg-1024x768", 2, 4, 32),
    ("jpeg-smooth-640x480-w2-f2-b64", "jpeg-smooth-640x480", 2, 2, 64),
    ("png-320x240-w1-f2-b32", "png-320x240", 1, 2, 32),
    ("png-320x240-w2-f2-b64", "png-320x240", 2, 2, 64),
    ("tar-500x375-w1-f2-b32", "tar-500x375", 1, 2, 32),
    ("tar-500x375-w2-f4-b32", "tar-500x375", 2, 4, 32),
    ("tokens-8k-w1-f2-b64", "tokens-8k", 1, 2, 64),
    ("npz-1m-w1-f2-b8", "npz-1m", 1, 2, 8),
    ("npz-1m-w2-f4-b8", "npz-1m", 2, 4, 8),
    ("raw-256k-w1-f2-b16", "raw-256k", 1, 2, 16),
    ("raw-256k-w2-f4-b16", "raw-256k", 2, 4, 16),
]
# What `steelyard rehearse` needs besides the folder.
FLAGS = {"tokens-8k": ["--sequence", "4096"], "raw-256k": ["--format", "raw", "--record-bytes", "262144"]}


# --- data sets ----------------------------------------------------------------------------------------------------

def picture(width, height, seed, falls=1.0):
    """Coloured noise whose spectrum falls as that of photographs does."""
    import numpy
    from PIL import Image

    rng = numpy.random.default_rng(seed)
    fy = numpy.fft.fftfreq(height)[:, None]
    fx = numpy.fft.fftfreq(width)[None, :]
    envelope = 1 / numpy.maximum(numpy.hypot(fx, fy), 1 / width) ** falls
    planes = []
    for _ in range(3):
        spectrum = envelope * numpy.exp(2j * numpy.pi * rng.random((height, width)))
        plane = numpy.fft.ifft2(spectrum).real
        planes.append((plane - plane.mean()) / plane.std() * 50 + 128)
    mixed = numpy.stack([planes[0], planes[0] * 0.7 + planes[1] * 0.3,
                         planes[0] * 0.7 + planes[2] * 0.3], axis=-1)
    return Image.fromarray(mixed.clip(0, 255).astype("uint8"))


def encoded(width, height, count, kind, falls=1.0):
    for i in range(count):
        stream = io.BytesIO()
        picture(width, height, i, falls).save(stream, kind, **({"quality": 80} if kind == "JPEG" else {}))
        yield stream.getvalue()


def pictures(folder, width, height, count, kind, falls=1.0):
    for i, data in enumerate(encoded(width, height, count, kind, falls)):
        (folder / f"{i:05}.{'jpg' if kind == 'JPEG' else 'png'}").write_bytes(data)


def shards(folder):
    files = list(encoded(500, 375, 128, "JPEG"))
    for shard in range(4):
        with tarfile.open(folder / f"{shard:04}.tar", "w") as archive:
            for i, data in enumerate(files[shard * 32:(shard + 1) * 32]):
                info = tarfile.TarInfo(f"{shard:04}{i:05}.jpg")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def arrays(folder):
    import numpy

    rng = numpy.random.default_rng(1)
    for i in range(48):
        numpy.savez(folder / f"{i:03}.npz", x=rng.integers(0, 255, 1 << 20, dtype="uint8"))


def noise(path, size):
    import numpy

    path.write_bytes(numpy.random.default_rng(2).integers(0, 30000, size // 2, dtype="uint16").tobytes())


MAKERS = {
    "jpeg-500x375": lambda f: pictures(f, 500, 375, 256, "JPEG"),
    "jpeg-1024x768": lambda f: pictures(f, 1024, 768, 96, "JPEG"),
    "jpeg-smooth-640x480": lambda f: pictures(f, 640, 480, 128, "JPEG", 1.6),
    "png-320x240": lambda f: pictures(f, 320, 240, 128, "PNG"),
    "tar-500x375": shards,
    "tokens-8k": lambda f: noise(f / "tokens.bin", 64 << 20),
    "npz-1m": arrays,
    "raw-256k": lambda f: noise(f / "records.raw", RAW_BYTES),
}


def made(root, name):
    folder = root / name
    if not (folder / ".whole").exists():
        folder.mkdir(parents=True, exist_ok=True)
        MAKERS[name](folder)
        (folder / ".whole").write_text("", encoding="ascii")
    return folder


def into_page_cache(folder):
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        while os.read(file, 1 << 20):
            pass
        os.close(file)


# --- runs ---------------------------------------------------------------------------------------------------------

def data_keys(name, folder):
    """What `data.sizes_from` would measure: the record sizes as the rehearsal tells them, mean and deviation."""
    keys = {}
    if name.startswith(("jpeg", "png")):
        sizes = [path.stat().st_size for path in folder.iterdir() if path.suffix in (".jpg", ".png")]
        keys |= {"kind": name.split("-")[0], "layout": "files"}
    elif name.startswith("tar"):
        sizes = []
        for path in folder.glob("*.tar"):
            with tarfile.open(path) as archive:
                sizes += [member.size for member in archive]
        keys |= {"kind": "jpeg", "layout": "tar"}
    elif name.startswith("npz"):
        sizes = [(1 << 20) + 128] * len(list(folder.glob("*.npz")))
        keys |= {"kind": "npz", "layout": "files"}
    elif name.startswith("tokens"):
        sizes = [8192] * ((64 << 20) // 8192)
        keys |= {"kind": "tokens", "layout": "memmap"}
    else:
        sizes = [262144] * (RAW_BYTES // 262144)
        keys |= {"kind": "npz", "layout": "tar"}
    width_height = name.split("-")[-1]
    if "x" in width_height and name.startswith(("jpeg", "png", "tar")):
        width, height = map(int, width_height.split("x"))
        keys["stored_size"] = [height, width]
    keys |= {"samples": len(sizes), "bytes_per_sample": round(statistics.mean(sizes), 1),
             "bytes_deviation": round(statistics.pstdev(sizes), 1), "shuffle": "sample"}
    return keys


def job_of(run, folder):
    name, data, workers, prefetch, batch = run
    model = {"config": {"model_type": "vit", "hidden_size": 64, "num_hidden_layers": 2,
                        "num_attention_heads": 2, "intermediate_size": 128, "hidden_act": "gelu",
                        "image_size": 224, "patch_size": 32, "num_channels": 3, "num_labels": 1000,
                        "qkv_bias": True, "hidden_dropout_prob": 0.0,
                        "attention_probs_dropout_prob": 0.0}}
    keys = data_keys(data, folder)
    keys |= {"loader": "rehearsal", "workers": workers, "prefetch": prefetch, "pin_memory": False}
    return {"name": name, "framework": "pytorch", "model": model,
            "train": {"method": "full", "precision": "fp32", "optimizer": "sgd", "micro_batch": batch,
                      "image_size": [224, 224]},
            "data": keys, "checkpoint": {"load": "meta"},
            "machine": {"name": f"../machines/{MACHINE.name}", "gpus": 1}}


def busy_seconds():
    """Of all processors, since the start of the machine, what the host took included."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, open("/proc/stat", encoding="ascii").readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def alone(command):
    """Output of the command, and whether it had the machine to itself."""
    begin, before = time.monotonic(), busy_seconds()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    others = busy_seconds() - before - own
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout, others < OTHERS * (time.monotonic() - begin) * os.cpu_count()


def rehearse(program, run, folder, seconds):
    name, data, workers, prefetch, batch = run
    command = [program, "rehearse", "--data", str(folder), "--accelerators", "1", "--step-time", "0",
               "--workers", str(workers), "--prefetch", str(prefetch), "--batch", str(batch),
               "--seconds", str(seconds), "--json"] + FLAGS.get(data, [])
    output, quiet = alone(command)
    report = json.loads(output)
    return {"rate": report["rate"], "quiet": quiet, "memory": report["memory"]}


def case_of(run, folder, results):
    rates = [r["rate"] for r in results if r["quiet"]]
    memory = results[-1]["memory"]
    measured = {"ram_peak": max(r["memory"]["peak"] for r in results), "ram_scope": "job"}
    # One fast run alone may be chance.
    if len(rates) > 1 and sorted(rates)[-1] < 1.1 * sorted(rates)[-2]:
        measured["loader_samples_per_second"] = round(max(rates), 2)
    else:
        print(f"{run[0]}: {len(rates)} quiet runs, memory alone is recorded", file=sys.stderr)
    return {"id": f"recorded-rehearsal/{run[0]}", "job": job_of(run, folder),
            "measured": measured,
            "confidence": "high",
            "assumptions": [f"rates of {len(rates)} quiet runs: {min(rates, default=0):.1f} to {max(rates, default=0):.1f}; own buffers: "
                            f"index {memory['index']}, read buffers {memory['read_buffers']}, batches "
                            f"{memory['batches']}, decoding {memory['decoding']} B"]}


def merged(new):
    cases = json.loads(CASES.read_text(encoding="utf-8"))["cases"] if CASES.exists() else []
    order = {f"recorded-rehearsal/{run[0]}": i for i, run in enumerate(RUNS)}
    cases = [case for case in cases if case["id"] != new["id"] and case["id"] in order] + [new]
    cases.sort(key=lambda case: order[case["id"]])
    memory = next(line for line in open("/proc/meminfo", encoding="ascii")).split()[1]
    source = {"title": f"recorded with validation/record_rehearsal.py on {MACHINE.name} "
                       f"({memory} kB, Linux {platform.release()})",
              "where": f"`steelyard rehearse` with step time 0, data in the page cache; machine by `steelyard probe -o`, {platform.machine()}", "url": ""}
    text = json.dumps({"schema": "steelyard.cases/1", "source": source, "cases": cases}, indent=1)
    CASES.write_text(text + "\n", encoding="utf-8")


def best_of_both(machine, other):
    """Of two machine files of one machine the better figure each: of rates the higher."""
    for part in ("memory", "images"):
        def name(rate):
            return tuple(v for k, v in rate.items() if not k.endswith("_per_second"))
        known = {name(rate): rate for rate in other["host"]["rates"][part]}
        for rate in machine["host"]["rates"][part]:
            for key, value in known.get(name(rate), {}).items():
                if key.endswith("_per_second"):
                    rate[key] = max(rate[key], value)
    def known_rates(m):
        return [m["host"]["memory_bandwidth_bytes_per_second"], m["host"]["thread_copy_bytes_per_second"]] + [
            storage[key] for storage in m["storage"] for key in sorted(storage) if key.endswith("_per_second")]
    for mine, theirs in zip(known_rates(machine), known_rates(other)):
        if theirs["value"] is not None and (mine["value"] is None or theirs["value"] > mine["value"]):
            mine.update(theirs)
    return machine


def probe(program, data, fresh):
    before = None if fresh or not MACHINE.exists() else json.loads(MACHINE.read_text(encoding="utf-8"))
    MACHINE.parent.mkdir(exist_ok=True)
    _, quiet = alone([program, "probe", "-o", str(MACHINE), "--path", str(data)])
    print("the machine was", "quiet" if quiet else "not quiet")
    if before:
        machine = best_of_both(json.loads(MACHINE.read_text(encoding="utf-8")), before)
        MACHINE.write_text(json.dumps(machine, indent=2) + "\n", encoding="utf-8")
    return 0


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--program", default="build/release/steelyard")
    options.add_argument("--data", type=pathlib.Path, default=pathlib.Path("/tmp/steelyard-rehearsal-data"))
    options.add_argument("--only", default="*")
    options.add_argument("--repeat", type=int, default=2)
    options.add_argument("--seconds", type=float, default=3)
    options.add_argument("--fresh", action="store_true", help="forget what earlier calls measured")
    options.add_argument("--list", action="store_true")
    options.add_argument("--make", action="store_true", help="the data sets alone")
    options.add_argument("--probe", action="store_true", help="the machine file alone")
    given = options.parse_args()
    runs = [run for run in RUNS if fnmatch.fnmatch(run[0], given.only)]
    if given.list:
        print("\n".join(run[0] for run in runs))
        return 0
    given.data.mkdir(parents=True, exist_ok=True)
    if given.probe:
        return probe(given.program, given.data, given.fresh)
    folders = {run[1]: made(given.data, run[1]) for run in runs}
    if given.make:
        return 0
    for folder in folders.values():
        into_page_cache(folder)
    kept = given.data / "runs.json"
    results = {} if given.fresh or not kept.exists() else json.loads(kept.read_text(encoding="utf-8"))
    failed = 0
    for _ in range(given.repeat):
        for run in runs:
            try:
                done = rehearse(given.program, run, folders[run[1]], given.seconds)
                results.setdefault(run[0], []).append(done)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                failed = 1
    kept.write_text(json.dumps(results), encoding="utf-8")
    for run in runs:
        if results.get(run[0]):
            case = case_of(run, folders[run[1]], results[run[0]])
            merged(case)
            print(case["id"], case["measured"])
    return failed


if __name__ == "__main__":
    sys.exit(main())
