#!/usr/bin/python3
"""Rehearsal against FFCV, same pictures, same output: 224 x 224 RGB bytes, random resized crop, mirrored half of the time.

    bench/against_ffcv.py --program build/release/steelyard [--rounds 3] [--seconds 6]

Makes JPEG files of 500 x 375 (as bench/against_dataloader.py), has FFCV's DatasetWriter convert them to its own file
(its pictures encoded again with the same quality: OpenCV's JPEG has about the same size), then runs in turn

  steelyard steelyard rehearse on the folder, one worker per core, accelerators that take what comes
  ffcv N    ffcv.loader.Loader with N workers, OrderOption.RANDOM, os_cache=True, RandomResizedCropRGBImageDecoder,
            RandomHorizontalFlip, batches as FFCV makes them (ToTensor)

and prints the median rate of each, the processor time of an image and the most memory (proportional set sizes). FFCV's
first epoch compiles its pipeline and does not count. Needs Debian's python3-ffcv, python3-numba, python3-opencv,
python3-torch. FFCV resizes with INTER_AREA from the whole decoded picture; the rehearsal decodes the part alone.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import against_dataloader as base

SIZE = 500, 375
WRITE = """
import sys, pathlib, numpy
from PIL import Image
from ffcv.writer import DatasetWriter
from ffcv.fields import RGBImageField, IntField
folder, out, quality = sys.argv[1], sys.argv[2], int(sys.argv[3])
class Files:
    def __init__(self): self.files = sorted(map(str, pathlib.Path(folder).iterdir()))
    def __len__(self): return len(self.files)
    def __getitem__(self, i): return (numpy.asarray(Image.open(self.files[i]).convert('RGB')), i)
DatasetWriter(out, {'image': RGBImageField(write_mode='jpg', jpeg_quality=quality), 'label': IntField()},
              num_workers=1).from_indexed_dataset(Files())
"""

LOAD = """
import sys, time, os, pathlib
from ffcv.loader import Loader, OrderOption
from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder, IntDecoder
from ffcv.transforms import RandomHorizontalFlip, ToTensor
path, workers, batch, seconds = sys.argv[1], *map(int, sys.argv[2:5])
loader = Loader(path, batch_size=batch, num_workers=workers, order=OrderOption.RANDOM, os_cache=True, drop_last=True,
                pipelines={'image': [RandomResizedCropRGBImageDecoder((224, 224)), RandomHorizontalFlip(), ToTensor()],
                           'label': [IntDecoder(), ToTensor()]})
for _ in loader: pass
begin, before, images = time.monotonic(), time.process_time(), 0
while time.monotonic() - begin < seconds:
    for pictures, _ in loader:
        images += len(pictures)
        if time.monotonic() - begin >= seconds: break
print(images / (time.monotonic() - begin), (time.process_time() - before) / max(1, images))
"""


def ffcv(path, seconds, workers, batch):
    process = subprocess.Popen([sys.executable, "-c", LOAD, path, str(workers), str(batch), str(seconds)],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    memory = base.Memory(process.pid)
    memory.start()
    text, _ = process.communicate()
    memory.on = False
    rate, cpu = map(float, text.split())
    return rate, cpu, memory.most


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--program", default="build/release/steelyard")
    arguments.add_argument("--photos", help="folder of photographs, at least 500 x 375")
    arguments.add_argument("--images", type=int, default=512)
    arguments.add_argument("--quality", type=int, default=92)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--seconds", type=int, default=6)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    arguments.add_argument("--folder", help="kept here, for several calls; else made anew and removed")
    given = arguments.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(given.folder or temporary)
        folder, converted = root / "jpeg", root / "all.beton"
        if not converted.exists():
            folder.mkdir(parents=True, exist_ok=True)
            base.make_files(folder, given.images, given.photos, given.quality, SIZE)
            subprocess.run([sys.executable, "-c", WRITE, folder, converted, str(given.quality)], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sizes = [path.stat().st_size for path in folder.iterdir()]
        print(f"{len(sizes)} files of {SIZE[0]} x {SIZE[1]}, {statistics.mean(sizes) / 1000:.1f} kB on average; "
              f"FFCV's file {converted.stat().st_size / len(sizes) / 1000:.1f} kB a picture; {cores} cores")
        runs = {"steelyard": lambda: base.steelyard(given.program, str(folder), given.seconds, cores, given.batch)}
        for workers in given.workers:
            runs[f"ffcv {workers}"] = lambda w=workers: ffcv(str(converted), given.seconds, w, given.batch)
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
            held = max(most for _, _, most in triples) / 2**20
            print(f"| {run} | {statistics.median(rates):.0f} | {rates[0]:.0f} .. {rates[-1]:.0f} | {cpu:.2f} | {held:.0f} MiB |")


if __name__ == "__main__":
    main()
