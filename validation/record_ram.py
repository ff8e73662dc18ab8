#!/usr/bin/env python3
"""Records what training processes take of a host's memory, as cases that `steelyard validate` compares with its plans.

    record_ram.py --list                       the runs, without torch
    record_ram.py --out FOLDER --photographs FOLDER
                                               runs them all, each in processes of its own, on the CPU
    record_ram.py --out FOLDER --only GLOB     those whose id fits

Runs stand in record_ram_jobs.toml; record_ram_steps.py is what a process does. --python NAME=PROGRAM gives the
interpreter of a set of runs (NAME: the `python` of a run). FOLDER receives jobs/ID.json, rows.json (every phase of
every run) and cases.json (schema steelyard.cases/1). Photographs are *.jpg from which the pictures of JPEG folders are cut.

What is read, and how (docs/model/host-memory.md, "Measured here"):
  job      anonymous pages of all processes, those that fork shares counted once (Pss_Anon of smaps_rollup), and what
           /dev/shm holds, and the files of programs and libraries once (RssFile of the process that maps most)
  process  anonymous and shared pages of the fullest process, and its mapped programs and libraries (those that ranks
           share in equal parts)
  cgroup   where a control group can be made (as root): the peak that the kernel charged to the run's processes, page cache
           included, and what of it is anonymous, shared and of files at the phase's end. In rows.json only: it is what a
           memory limit sees, but page cache gives way before the limit kills
Mapped data and checkpoints are page cache, which the kernel takes back, and stay out. Peaks are those of samples every
thirty milliseconds; what they missed of the fullest process (VmHWM says) is added. Times are not recorded.

Exit status: 0 all that ran was recorded; 1 a run failed; 2 bad arguments.
Needs Python 3.11 here; the interpreters that run jobs need what record_ram_steps.py names.
"""
import argparse
import fnmatch
import json
import os
import pathlib
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
STEPS = HERE / "record_ram_steps.py"
OFTEN = 0.03   # seconds between looks at the ranks' own counters
SELDOM = 0.4   # between looks at all processes
KIB = 1024
RUN_SECONDS = 1500


def numbers_of(path):
    """{name: bytes} of a /proc file with lines "Name:  123 kB"."""
    found = {}
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            found[words[0].rstrip(":")] = int(words[1]) * KIB
    return found


def tree_of(roots):
    """The processes of these roots and what they started."""
    found, todo = [], list(roots)
    while todo:
        one = todo.pop()
        found.append(one)
        try:
            for task in pathlib.Path(f"/proc/{one}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
        except OSError:
            continue
    return found


def shared_memory_used():
    counts = os.statvfs("/dev/shm")
    return (counts.f_blocks - counts.f_bfree) * counts.f_frsize


class Group:
    """A memory control group of a run's own, version 1 or 2; without one (`folder` None) it reads nothing."""

    VERSIONS = (("/sys/fs/cgroup/memory", "memory.max_usage_in_bytes", ("rss", "mapped_file", "shmem", "cache")),
                ("/sys/fs/cgroup", "memory.peak", ("anon", "file_mapped", "shmem", "file")))

    def __init__(self):
        self.folder = None
        for root, peak, names in self.VERSIONS:
            folder = pathlib.Path(root) / f"record_ram.{os.getpid()}"
            try:
                folder.mkdir()
            except OSError:
                continue
            if (folder / peak).exists():
                self.folder, self.peak, self.names = folder, peak, names
                return
            folder.rmdir()

    def join(self):
        """In a process of the run, before its program begins."""
        if self.folder:
            (self.folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    def take(self):
        """The peak since the last call (where it can be set back: version 1), and what is charged now."""
        if not self.folder:
            return None
        found = {"peak": int((self.folder / self.peak).read_text(encoding="ascii"))}
        for line in (self.folder / "memory.stat").read_text(encoding="ascii").splitlines():
            name, value = line.split()
            if name in self.names:
                found[name] = int(value)
        try:
            (self.folder / self.peak).write_text("0", encoding="ascii")
        except OSError:
            pass
        return found

    def close(self):
        for _ in range(50):
            if not self.folder:
                return
            try:
                self.folder.rmdir()
                return
            except OSError:  # its processes are still ending
                time.sleep(0.1)


class Watch(threading.Thread):
    """Looks at the processes of a run until told to stop; `take` ends a phase."""

    def __init__(self, ranks, data, maps_checkpoint, group):
        super().__init__(daemon=True)
        self.group = group
        self.ranks, self.data, self.shared_before = ranks, data, shared_memory_used()
        self.maps_checkpoint = maps_checkpoint  # while it loads; then VmHWM counts page cache
        self.lock, self.ended = threading.Lock(), False
        self.libraries = 0
        self.reset()

    def reset(self):
        self.process, self.job, self.own = 0, 0, {}

    def look_at_ranks(self):
        for rank in self.ranks:
            try:
                numbers = numbers_of(pathlib.Path(f"/proc/{rank}/status"))
            except OSError:
                continue
            own = numbers.get("RssAnon", 0) + numbers.get("RssShmem", 0)
            self.own[rank] = max(self.own.get(rank, 0), own)
        self.process = max([self.process, *self.own.values()])

    def look_at_all(self):
        anonymous, files, processes = 0, 0, []
        for process in tree_of(self.ranks):
            try:
                numbers = numbers_of(pathlib.Path(f"/proc/{process}/smaps_rollup"))
                status = numbers_of(pathlib.Path(f"/proc/{process}/status"))
            except OSError:
                continue
            anonymous += numbers.get("Pss_Anon", 0)
            files = max(files, status.get("RssFile", 0))
            processes.append(numbers)
        shared = max(0, shared_memory_used() - self.shared_before)
        self.job = max(self.job, anonymous + shared)
        return {"anonymous": anonymous, "shared_memory": shared, "files": files, "processes": len(processes),
                "anonymous_of_each": [p.get("Pss_Anon", 0) for p in processes],
                "private_of_each": [p.get("Private_Dirty", 0) for p in processes]}

    def run(self):
        last = 0.0
        while not self.ended:
            with self.lock:
                self.look_at_ranks()
                if time.monotonic() - last > SELDOM:
                    self.look_at_all()
                    last = time.monotonic()
            time.sleep(OFTEN)

    def mapped_data(self, process):
        """Resident bytes of mapped files of the run: data and checkpoints."""
        total, inside = 0, False
        maps = pathlib.Path(f"/proc/{process}/smaps").read_text(encoding="ascii", errors="replace")
        for line in maps.splitlines():
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                inside = str(self.data) in line
            elif inside and words[0] == "Rss:":
                total += int(words[1]) * KIB
        return total

    def take(self, phase):
        """Ends a phase while all processes wait: its peaks, and what is held at this moment."""
        with self.lock:
            now = self.look_at_all()
            sampled = dict(self.own)
            self.look_at_ranks()
            mapped = max(self.mapped_data(rank) for rank in self.ranks)
            self.libraries = max(self.libraries, now["files"] - mapped)
            missed = 0
            if mapped == 0 and not (phase == "load" and self.maps_checkpoint):
                for rank in self.ranks:
                    status = numbers_of(pathlib.Path(f"/proc/{rank}/status"))
                    peak = status["VmHWM"] - status["RssFile"]
                    missed = max(missed, peak - max(self.own.get(rank, 0), sampled.get(rank, 0)))
            row = {"phase": phase, "process": max(self.process, *self.own.values()) + missed + self.libraries,
                   "job": self.job + missed + self.libraries, "missed": missed, "libraries": self.libraries,
                   "mapped_data": mapped, "at_the_end": now, "cgroup": self.group.take()}
            row["job"] = max(row["job"], row["process"])  # all processes are looked at less often than the ranks
            self.reset()
            for rank in self.ranks:
                pathlib.Path(f"/proc/{rank}/clear_refs").write_text("5", encoding="ascii")  # VmHWM starts anew
        return row


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(arguments, extra):
    return {**os.environ, "PHOTOGRAPHS": str(arguments.photographs or ""), "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "2", "PYTHONDONTWRITEBYTECODE": "1", **extra}


def run_one(run, job_file, data, arguments):
    """The rows of a run: what each phase took."""
    python = arguments.python[run["python"]]
    prepared = subprocess.run([python, str(STEPS), "--prepare", str(job_file), str(data)], capture_output=True, text=True,
                              check=False, env=environment(arguments, {}))
    if prepared.returncode != 0:
        return {"failed": "prepare: " + (prepared.stderr.strip().splitlines() or ["no output"])[-1]}
    world, port = run["job"]["machine"]["gpus"], str(free_port())
    processes, group = [], Group()
    for rank in range(world):
        more = {"RANK": str(rank), "WORLD_SIZE": str(world)} if world > 1 else {}
        processes.append(subprocess.Popen(
            [python, str(STEPS), "--run", str(job_file), str(data), port], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(arguments, more),
            preexec_fn=group.join))
    watch = Watch([process.pid for process in processes], data, run["job"]["checkpoint"]["load"] == "mmap", group)
    deadline = threading.Timer(RUN_SECONDS, lambda: [process.kill() for process in processes])
    watch.start()
    deadline.start()
    rows, done = [], False
    for line in processes[0].stdout:
        words = line.split()
        if words and words[0] == "at":
            rows.append(watch.take(words[1]))
            processes[0].stdin.write("on\n")
            processes[0].stdin.flush()
        done = done or words == ["done"]
    watch.ended = True
    deadline.cancel()
    watch.join()
    for process in processes:
        process.kill()
        process.wait()
    group.close()
    if not done:
        return {"failed": (processes[0].stderr.read().strip().splitlines() or ["no output"])[-1]}
    return {"rows": rows}


def software_of(python):
    """Versions, for the source of the cases."""
    code = ("import json, platform\nfrom importlib import metadata\nfound = {'python': platform.python_version()}\n"
            "for name in ('torch', 'torchvision', 'transformers', 'numpy', 'pillow', 'safetensors'):\n"
            "    try: found[name] = metadata.version(name)\n    except Exception: pass\nprint(json.dumps(found))")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def merged(base, more):
    result = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both and key != "config" else value
    return result


def read_runs(file):
    """[run]: id, python, phase and the whole job of each."""
    with open(file, "rb") as source:
        table = tomllib.load(source)
    runs = []
    for entry in table["run"]:
        job = merged(table["common"], {"model": {"config": table["model"][entry["model"]]}})
        job = merged(job, merged(table.get(entry.get("like", ""), {}), entry.get("job", {})))
        job = {"name": entry["id"], **job, "versions": table["versions"][entry["python"]]}
        runs.append({"id": entry["id"], "python": entry["python"], "phases": entry["phases"], "job": job,
                     "more": entry.get("more", {})})
    return runs


def case_of(run, row):
    phase, ranks = row["phase"], run["job"]["machine"]["gpus"]
    process = row["process"] - row["libraries"] + row["libraries"] // ranks  # shared by the ranks: in equal parts
    measured = {"ram_peak": row["job"], "ram_process_peak": process, "ram_scope": "job", "ram_phase": phase}
    if run["more"].get("process_only"):
        del measured["ram_peak"]
    return {"id": f"recorded-ram/{run['id']}/{phase}", "job": run["job"], "measured": measured,
            "confidence": "high", "assumptions": run["more"].get("assumptions", [])}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def machine_text():
    total = numbers_of(pathlib.Path("/proc/meminfo"))["MemTotal"]
    pages = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    huge = pages.read_text(encoding="ascii").strip() if pages.exists() else "?"
    return f"{os.cpu_count()} processors, {total} bytes, Linux {platform.release()}, huge pages {huge}"


def record_all(runs, arguments):
    out = pathlib.Path(arguments.out)
    software = {name: software_of(python) for name, python in arguments.python.items()
                if any(run["python"] == name for run in runs)}
    cases, rows, failures = [], [], 0
    for run in runs:
        job_file = out / "jobs" / (run["id"] + ".json")
        write(job_file, {**run["job"], **run["more"]})
        data = pathlib.Path(tempfile.mkdtemp(prefix="record_ram_", dir=arguments.scratch))
        try:
            result = run_one(run, job_file, data, arguments)
        finally:
            shutil.rmtree(data, ignore_errors=True)
        if "rows" not in result:
            failures += 1
            print(f"{run['id']}: FAILED: {result['failed']}", flush=True)
            continue
        write(job_file, run["job"])
        rows.append({"id": run["id"], "job": run["job"], "rows": result["rows"]})
        for row in result["rows"]:
            now = row["at_the_end"]
            print(f"{run['id']} {row['phase']}: job {row['job'] >> 20} MiB, process {row['process'] >> 20}, "
                  f"missed {row['missed'] >> 20}; at its end {now['anonymous'] >> 20} anonymous, "
                  f"{now['shared_memory'] >> 20} shared, {now['processes']} processes with "
                  f"{[own >> 20 for own in now['private_of_each']]} of their own", flush=True)
            if row["phase"] in run["phases"]:
                cases.append(case_of(run, row))
        write(out / "rows.json", {"schema": "steelyard.recorded-ram/1", "software": software, "runs": rows})
        write(out / "cases.json", {"schema": "steelyard.cases/1", "source": {
            "title": "recorded with validation/record_ram.py on " + machine_text(),
            "where": "software: " + json.dumps(software), "url": ""}, "cases": cases})
    return 1 if failures else 0


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default=str(HERE / "record_ram_jobs.toml"), help="the list of runs")
    parser.add_argument("--only", default="*", metavar="GLOB", help="runs whose id fits")
    parser.add_argument("--list", action="store_true", help="print the runs and stop")
    parser.add_argument("--out", metavar="FOLDER", help="where the results go")
    parser.add_argument("--scratch", metavar="FOLDER", help="where data and checkpoints of a run lie for a while")
    parser.add_argument("--photographs", metavar="FOLDER", type=pathlib.Path)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PROGRAM")
    arguments = parser.parse_args(argv)
    arguments.python = dict(item.split("=", 1) for item in arguments.python)
    if not (arguments.list or arguments.out):
        parser.error("--out FOLDER is needed (or --list)")
    return arguments


def main(argv=None):
    arguments = parse(argv)
    runs = [run for run in read_runs(arguments.runs) if fnmatch.fnmatch(run["id"], arguments.only)]
    if arguments.list:
        for run in runs:
            print(run["id"], run["python"], json.dumps(run["job"]))
        return 0
    if not runs:
        sys.exit(f"record_ram.py: no run is named {arguments.only!r}; --list shows them")
    without = sorted({run["python"] for run in runs} - set(arguments.python))
    if without:
        print(f"record_ram.py: left out, for want of --python NAME=PROGRAM: the runs of {', '.join(without)}", file=sys.stderr)
    runs = [run for run in runs if run["python"] in arguments.python]
    if not runs:
        sys.exit("record_ram.py: nothing to run; say which interpreter has torch, as --python venv=/path/to/python")
    return record_all(runs, arguments)


if __name__ == "__main__":
    sys.exit(main())
