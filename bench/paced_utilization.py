#!/usr/bin/env python3
"""Whether paced accelerators report what they were given: never short, and starved by half.

    bench/paced_utilization.py --program build/release/steelyard [--seconds 12] [--folder FOLDER]

Makes a file of raw records (256 KiB each) below --folder and rehearses it in two ways, 16 records a step:

  never short      from the page cache, two accelerators that take an eighth of what came without a step time: at
                   least 99 % must be reported for each.
  starved by half  past the page cache (--direct), in a control group (version 1: blkio.throttle, version 2: io.max)
                   whose reads are held to as many bytes per second as half of what one accelerator takes at its step
                   time: 49 to 51 %. What the group lets through is counted by the kernel, not by the program.

As root; exit status 0 both held, 1 one did not, 77 no such control group can be had here.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

RECORD, BATCH = 256 << 10, 16
V1, V2 = pathlib.Path("/sys/fs/cgroup/blkio"), pathlib.Path("/sys/fs/cgroup")


class Group:
    """A control group whose reads from the device of `folder` are limited."""

    def __init__(self, folder, rate):
        device = os.stat(folder).st_dev
        name = f"{os.major(device)}:{os.minor(device)}"
        second = (V2 / "cgroup.controllers").exists()
        self.path = (V2 if second else V1) / f"steelyard-pace-{os.getpid()}"
        self.path.mkdir()
        try:
            if second:
                (self.path / "io.max").write_text(f"{name} rbps={rate}")
            else:
                (self.path / "blkio.throttle.read_bps_device").write_text(f"{name} {rate}")
        except OSError:
            self.path.rmdir()
            raise

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self):
        self.path.rmdir()


def rehearse(program, folder, seconds, *flags, group=None):
    command = [program, "rehearse", "--data", str(folder), "--format", "raw", "--record-bytes", str(RECORD), "--workers", "1",
               "--batch", str(BATCH), "--seconds", str(seconds), "--json", *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=group.enter if group else None)
    return json.loads(done.stdout)


def line(what, report, held):
    print(f"| {what} | {report['rate']:.1f} | {100 * report['utilization_mean']:.2f} % | "
          f"{100 * report['utilization_least']:.2f} % | {'yes' if held else 'no'} |", flush=True)
    return held


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--program", default="build/release/steelyard")
    arguments.add_argument("--seconds", type=float, default=12)
    arguments.add_argument("--folder", help="on the disk to read from; else the usual one for temporary files")
    given = arguments.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}\n\n| run | samples/s | used, mean | least | holds |\n|---|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        with open(pathlib.Path(folder) / "records.raw", "wb") as file:
            for _ in range(256):
                file.write(os.urandom(RECORD))
            file.flush()
            os.fsync(file.fileno())
        free = rehearse(given.program, folder, 2, "--accelerators", 1, "--step-time", 0)["rate"]
        step = 2 * BATCH / (free / 8)
        full = rehearse(given.program, folder, given.seconds, "--accelerators", 2, "--step-time", step)
        held = line("never short", full, full["utilization_least"] >= 0.99)
        step = 0.1
        try:
            group = Group(folder, round(RECORD * BATCH / step / 2))
        except OSError as error:
            print(f"no control group for reads here: {error}", file=sys.stderr)
            return 77
        try:
            half = rehearse(given.program, folder, given.seconds, "--accelerators", 1, "--step-time", step, "--direct", group=group)
        finally:
            group.remove()
        held &= line("starved by half", half, 0.49 <= half["utilization_mean"] <= 0.51)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
