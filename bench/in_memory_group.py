#!/usr/bin/env python3
"""Check 7 of the data path: a rehearsal really inside a memory control group.

    bench/in_memory_group.py --program build/release/steelyard --data FOLDER [--batch 128 --prefetch 4 --workers 2]

Takes what the rehearsal tells before it starts (`memory.needed` of --json) and runs it again in a control group of its
own (version 1 or 2, made below the root of the hierarchy and removed afterwards): with 10 % more than that it must run to
its end; with 5 % less it must be refused (status 2, the group named) or killed. Reads go past the page cache where
the file system allows. As root.

Exit status: 0 both held; 1 one did not; 77 no control group can be had here, with the reason.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

V1 = pathlib.Path("/sys/fs/cgroup/memory")
V2 = pathlib.Path("/sys/fs/cgroup")


class Group:
    def __init__(self):
        self.second = (V2 / "cgroup.controllers").exists()
        self.path = (V2 if self.second else V1) / f"steelyard-check-{os.getpid()}"
        self.path.mkdir()
        if self.second and not (self.path / "memory.max").exists():
            self.path.rmdir()
            raise OSError("the memory controller is not given to groups below the root")

    def limit(self, size):
        # Swap would hide what does not fit; where it is counted, none is given.
        if self.second:
            (self.path / "memory.max").write_text(str(size))
            swap = self.path / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")
        else:
            (self.path / "memory.limit_in_bytes").write_text(str(size))

    def peak(self):
        name = "memory.peak" if self.second else "memory.max_usage_in_bytes"
        file = self.path / name
        return int(file.read_text()) if file.exists() else None

    def run(self, command):
        def enter():
            (self.path / "cgroup.procs").write_text(str(os.getpid()))
        return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=enter)

    def remove(self):
        self.path.rmdir()


def inside(command, size):
    group = Group()
    try:
        group.limit(size)
        done = group.run(command)
        return done, group.peak()
    finally:
        group.remove()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--program", default="build/release/steelyard")
    options.add_argument("--data", required=True)
    options.add_argument("--batch", default="128")
    options.add_argument("--prefetch", default="4")
    options.add_argument("--workers", default="2")
    options.add_argument("--seconds", default="3")
    given = options.parse_args()
    command = [given.program, "rehearse", "--data", given.data, "--batch", given.batch, "--prefetch", given.prefetch,
               "--workers", given.workers, "--step-time", "0", "--seconds", given.seconds, "--direct", "--json"]
    try:
        Group().remove()
    except OSError as error:
        print(f"no control group can be had: {error}")
        return 77
    free = subprocess.run(command, capture_output=True, text=True, check=False)
    if free.returncode != 0:
        sys.exit(free.stderr)
    memory = json.loads(free.stdout)["memory"]
    told, peak = memory["needed"], memory["peak"]
    print(f"told {told / 2**20:.1f} MiB, anonymous memory at its peak {peak / 2**20:.1f} MiB "
          f"({100 * (told / peak - 1):+.1f} %)")
    above, most = inside(command, told * 110 // 100)
    held = above.returncode == 0
    print(f"limit 10 % above: status {above.returncode}, {'survives' if held else 'DOES NOT SURVIVE'}; the group's peak, "
          f"page cache included, {most / 2**20:.1f} MiB" if most else "")
    below, _ = inside(command, told * 95 // 100)
    refused = below.returncode == 2 and "control group" in below.stderr
    killed = below.returncode in (-9, 137)
    print(f"limit 5 % below: status {below.returncode}, "
          f"{'refused' if refused else 'killed' if killed else 'NEITHER REFUSED NOR KILLED'}: {below.stderr.strip()[-200:]}")
    return 0 if held and (refused or killed) else 1


if __name__ == "__main__":
    sys.exit(main())
