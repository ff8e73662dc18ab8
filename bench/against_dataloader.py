#!/usr/bin/python3
"""Rehearsal against torchvision's DataLoader and against the bare JPEG decoder, same files.

    bench/against_dataloader.py --program build/release/steelyard [--photos DIR] [--rounds 3] [--size 500x375]

Makes a folder of JPEG files (of --size, from photographs when --photos has some, else from coloured
noise with a photograph's spectrum), then runs in turn, --rounds times, each for --seconds:

  bare      libjpeg-turbo's tjDecompress2 on every core, files in memory, nothing else
  steelyard steelyard rehearse, one worker per core, no step time
  loader N  torchvision ImageFolder-like data set, RandomResizedCrop(224), flip, bytes, N workers

and prints the median rate of each, the processor time of an image (which, unlike the rate, does not
depend on what else the machine does) and the most memory it held (sum of the proportional set sizes
of its processes). Needs Debian's python3-torchvision.
"""
import argparse
import ctypes
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy
from PIL import Image

def noise(seed, width, height):
    """An image whose spectrum falls as 1/f, as that of photographs does."""
    rng = numpy.random.default_rng(seed)
    fy = numpy.fft.fftfreq(height)[:, None]
    fx = numpy.fft.fftfreq(width)[None, :]
    falls = 1 / numpy.maximum(numpy.hypot(fx, fy), 1 / width)
    planes = []
    for _ in range(3):
        spectrum = falls * numpy.exp(2j * numpy.pi * rng.random((height, width)))
        plane = numpy.fft.ifft2(spectrum).real
        planes.append((plane - plane.mean()) / plane.std() * 50 + 128)
    mixed = numpy.stack([planes[0], planes[0] * 0.7 + planes[1] * 0.3,
                         planes[0] * 0.7 + planes[2] * 0.3], axis=-1)
    return Image.fromarray(mixed.clip(0, 255).astype("uint8"))


def photographs(folder, width, height):
    images = []
    for path in sorted(pathlib.Path(folder).rglob("*.jp*g")) if folder else []:
        image = Image.open(path).convert("RGB")
        if image.width < width or image.height < height:
            continue
        scale = max(width / image.width, height / image.height)
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        images.append(image.crop((0, 0, width, height)))
    return images


def make_files(folder, count, photos, quality, size):
    sources = photographs(photos, *size) or [noise(i, *size) for i in range(16)]
    for i in range(count):
        image = sources[i % len(sources)]
        shift = (i // len(sources)) * 7
        image = Image.fromarray(numpy.roll(numpy.asarray(image), shift, axis=1))
        image.save(folder / f"{i:05}.jpg", quality=quality)
    return len(sources)


class Memory(threading.Thread):
    """The most that a process and its children hold."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.on = pid, 0, True

    def processes(self):
        found = [self.pid]
        for pid in found:
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    text = pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text()
                    found += [int(child) for child in text.split()]
            except OSError:
                pass
        return found

    def run(self):
        while self.on:
            total = 0
            for pid in self.processes():
                try:
                    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
                except OSError:
                    continue
                total += sum(int(line.split()[1]) for line in text.splitlines()
                             if line.startswith("Pss:"))
            self.most = max(self.most, total * 1024)
            time.sleep(0.1)


def bare(folder, seconds, cores, size):
    width, height = size
    turbo = ctypes.CDLL("libturbojpeg.so.0")
    turbo.tjInitDecompress.restype = ctypes.c_void_p
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    counts = [0] * cores
    end = time.monotonic() + seconds

    def decode(thread):
        handle = ctypes.c_void_p(turbo.tjInitDecompress())
        pixels = ctypes.create_string_buffer(width * height * 3)
        i = thread
        while time.monotonic() < end:
            data = files[i % len(files)]
            turbo.tjDecompress2(handle, data, ctypes.c_ulong(len(data)), pixels, width, 0, height,
                                0, 0)
            counts[thread] += 1
            i += cores

    threads = [threading.Thread(target=decode, args=(n,)) for n in range(cores)]
    begin, used = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    images = sum(counts)
    return images / (time.monotonic() - begin), (time.process_time() - used) / images, 0


def steelyard(program, folder, seconds, cores, batch):
    process = subprocess.Popen(
        [program, "rehearse", "--data", folder, "--workers", str(cores), "--batch", str(batch),
         "--step-time", "0", "--seconds", str(seconds), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    memory = Memory(process.pid)
    memory.start()
    text, _ = process.communicate()
    memory.on = False
    if process.returncode != 0:
        sys.exit(f"steelyard rehearse ended with {process.returncode}")
    result = json.loads(text)
    decoded = result["epochs"] * result["setting"]["records"]
    return (result["rate"], sum(stage["cpu"] for stage in result["stages"]) / max(1, decoded),
            memory.most)


LOADER = """
import os, sys, time, pathlib, torch, torchvision
from PIL import Image
folder, workers, batch, seconds = sys.argv[1], *map(int, sys.argv[2:5])
torch.set_num_threads(1)
class Files(torch.utils.data.Dataset):
    def __init__(self):
        self.files = sorted(map(str, pathlib.Path(folder).iterdir()))
        self.make = torchvision.transforms.Compose([
            torchvision.transforms.RandomResizedCrop(224),
            torchvision.transforms.RandomHorizontalFlip(),
            torchvision.transforms.PILToTensor()])
    def __len__(self): return len(self.files)
    def __getitem__(self, i):
        with open(self.files[i], 'rb') as file:
            return self.make(Image.open(file).convert('RGB'))
loader = torch.utils.data.DataLoader(Files(), batch_size=batch, shuffle=True, drop_last=True,
                                     num_workers=workers, persistent_workers=workers > 0)
def used():
    ticks = 0
    pids = ['self'] + pathlib.Path('/proc/self/task/%d/children' % os.getpid()).read_text().split()
    for pid in pids:
        words = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
        ticks += int(words[11]) + int(words[12])
    return ticks / os.sysconf('SC_CLK_TCK')
begin = None
images = 0
while begin is None or time.monotonic() - begin < seconds:
    for pictures in loader:
        if begin is None: begin, before = time.monotonic(), used()
        else: images += len(pictures)
        if time.monotonic() - begin >= seconds: break
print(images / (time.monotonic() - begin), (used() - before) / max(1, images))
"""


def loader(folder, seconds, workers, batch):
    process = subprocess.Popen([sys.executable, "-c", LOADER, folder, str(workers), str(batch),
                                str(seconds)], stdout=subprocess.PIPE)
    memory = Memory(process.pid)
    memory.start()
    text, _ = process.communicate()
    memory.on = False
    rate, cpu = map(float, text.split())
    return rate, cpu, memory.most


def main():
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", default="build/release/steelyard")
    arguments.add_argument("--photos", help="folder of photographs, at least of --size")
    arguments.add_argument("--size", default="500x375", help="width x height of the files")
    arguments.add_argument("--images", type=int, default=512)
    arguments.add_argument("--quality", type=int, default=92)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--seconds", type=int, default=6)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2, 4])
    given = arguments.parse_args()
    size = tuple(map(int, given.size.split("x")))
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sources = make_files(folder, given.images, given.photos, given.quality, size)
        sizes = [path.stat().st_size for path in folder.iterdir()]
        print(f"{given.images} files of {size[0]} x {size[1]}, {sources} sources, "
              f"{statistics.mean(sizes) / 1000:.1f} kB on average; {cores} cores")
        runs = {"bare": lambda: bare(folder, given.seconds, cores, size),
                "steelyard": lambda: steelyard(given.program, name, given.seconds, cores,
                                               given.batch)}
        for workers in given.workers:
            runs[f"loader {workers}"] = lambda w=workers: loader(name, given.seconds, w,
                                                                 given.batch)
        results = {run: [] for run in runs}
        for _ in range(given.rounds):
            for run, start in runs.items():
                results[run].append(start())
        print(f"load average at the end {os.getloadavg()[0]:.1f}\n")
        print("| run | images/s, median | from .. to | CPU ms per image, median | memory, most |\n"
              "|---|---:|---:|---:|---:|")
        for run, triples in results.items():
            rates = sorted(rate for rate, _, _ in triples)
            cpu = statistics.median(used for _, used, _ in triples) * 1000
            memory = max(held for _, _, held in triples) / 2**20
            print(f"| {run} | {statistics.median(rates):.0f} | {rates[0]:.0f} .. {rates[-1]:.0f} "
                  f"| {cpu:.2f} | {f'{memory:.0f} MiB' if memory else ''} |")


if __name__ == "__main__":
    main()
