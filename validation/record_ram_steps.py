"""One process of a run that record_ram.py watches: it does what a job file says, on the CPU.

    record_ram_steps.py --prepare JOB DATA      makes the files that the job reads (dataset, checkpoint)
    record_ram_steps.py --run JOB DATA PORT     rank 0 prints "at PHASE" when a phase has ended and waits for a line

JOB is a job file in JSON, DATA a folder. Ranks beyond the first come with RANK and WORLD_SIZE in the environment.
Needs torch; a llama or vit also transformers, a torchvision_resnet torchvision, JPEG folders Pillow.
"""
import json
import os
import pathlib
import sys

STEPS = 2


# --- models -------------------------------------------------------------------------------------------------------

def build_model(config):
    config = dict(config)
    kind = config.pop("model_type")
    if kind == "torchvision_resnet":
        from torchvision.models import resnet

        block = {"basic": resnet.BasicBlock, "bottleneck": resnet.Bottleneck}[config["block"]]
        return resnet.ResNet(block, config["layers"], num_classes=config["num_classes"])
    import transformers

    made = transformers.CONFIG_MAPPING[kind](**config)
    if kind == "vit":
        return transformers.ViTForImageClassification(made)
    return transformers.AutoModelForCausalLM.from_config(made, attn_implementation="sdpa")


def loss_of(model, batch):
    if hasattr(model, "config") or hasattr(getattr(model, "module", None), "config"):
        return (model(input_ids=batch[0], labels=batch[1]) if batch[0].dim() == 2
                else model(pixel_values=batch[0], labels=batch[1]))
    import torch

    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


def scalar(outputs):
    return outputs.loss if hasattr(outputs, "loss") else outputs


# --- data ---------------------------------------------------------------------------------------------------------

class Tokens:
    """A memory-mapped file of 16-bit tokens, as nanoGPT and Megatron read theirs."""

    def __init__(self, file, samples, length, vocabulary):
        import numpy

        self.file, self.samples, self.length, self.vocabulary = file, samples, length, vocabulary
        self.tokens = numpy.memmap(file, dtype=numpy.uint16, mode="r")

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        import torch

        begin = index * self.length % (len(self.tokens) - self.length)
        ids = torch.from_numpy(self.tokens[begin:begin + self.length].astype("int64")) % self.vocabulary
        return ids, ids.clone()


class Pictures:
    """torchvision's ImageFolder without its class: a list of (path, class), one JPEG decoded per sample."""

    def __init__(self, folder, samples, size):
        files = sorted(str(path) for path in pathlib.Path(folder).glob("*.jpg"))
        self.files, self.size = files, size
        # Names as a folder of `samples` files would have; several of them stand for one file on the disk.
        self.items = [("%s/n%08d/n%08d_%06d.JPEG" % (folder, i % 1000, i % 1000, i), i % 1000) for i in range(samples)]

    def __len__(self):
        return len(self.items)

    def picture(self, path):
        from PIL import Image

        with open(self.files[int(path[-11:-5]) % len(self.files)], "rb") as source:
            return Image.open(source).convert("RGB")

    def decoded(self, image):
        import numpy
        import torch

        height, width = self.size
        if image.size != (width, height):
            image = image.resize((width, height))
        return torch.from_numpy(numpy.array(image)).permute(2, 0, 1).float().div_(255)

    def __getitem__(self, index):
        path, label = self.items[index]
        return self.decoded(self.picture(path)), label


class Encoded(Pictures):
    """data.cache = "ram-encoded": the files' bytes in a list, decoded when asked for."""

    def __init__(self, folder, samples, size):
        super().__init__(folder, 0, size)
        contents = [pathlib.Path(file).read_bytes() for file in self.files]
        self.items = [(bytes(bytearray(contents[i % len(contents)])), i % 1000) for i in range(samples)]

    def __getitem__(self, index):
        import io

        from PIL import Image

        content, label = self.items[index]
        return self.decoded(Image.open(io.BytesIO(content)).convert("RGB")), label


class Decoded:
    """data.cache = "ram": every sample decoded, in one array."""

    def __init__(self, samples, size):
        import torch

        self.pictures = torch.ones(samples, 3, *size)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index], index % 1000


def dataset_of(job, data):
    keys, train = job["data"], job["train"]
    if keys["kind"] == "tokens":
        return Tokens(data / "tokens.bin", keys["samples"], train["sequence_length"],
                      job["model"]["config"]["vocab_size"])
    cache = keys.get("cache", "page")
    if cache == "ram":
        return Decoded(keys["samples"], train["image_size"])
    kind = Encoded if cache == "ram-encoded" else Pictures
    return kind(data / "pictures", keys["samples"], train["image_size"])


def loader_of(job, data):
    import torch

    keys = job["data"]
    workers = keys.get("workers", 0)
    more = {"prefetch_factor": keys["prefetch"]} if workers else {}
    if workers and "worker_start" in keys:
        more["multiprocessing_context"] = keys["worker_start"]
    return torch.utils.data.DataLoader(dataset_of(job, data), batch_size=job["train"]["micro_batch"],
                                       shuffle=keys.get("shuffle", "sample") == "sample", num_workers=workers,
                                       drop_last=True, **more)


def made_batch(job):
    """data.kind = "synthetic": one batch, made by the loop."""
    import torch

    train = job["train"]
    if "sequence_length" in train:
        ids = torch.randint(job["model"]["config"]["vocab_size"], (train["micro_batch"], train["sequence_length"]))
        return ids, ids.clone()
    return torch.rand(train["micro_batch"], 3, *train["image_size"]), torch.zeros(train["micro_batch"]).long()


def batches_of(job, data):
    if job["data"]["kind"] != "synthetic":
        while True:
            yield from loader_of(job, data)
    while True:
        yield made_batch(job)


# --- loading and saving -------------------------------------------------------------------------------------------

def short(job):
    return job["train"]["precision"] == "bf16"


def load(job, data, rank, world):
    import torch
    import torch.distributed as dist

    torch.set_default_dtype(torch.bfloat16 if short(job) else torch.float32)
    way = job["checkpoint"]["load"]
    if way == "meta" and not hasattr(torch, "get_default_device"):
        model = build_model(job["model"]["config"])  # before torch 2: made where it stays, as to_empty() does
    elif way == "meta":
        with torch.device("meta"):
            model = build_model(job["model"]["config"])
        model.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                if tensor.is_floating_point():
                    tensor.normal_(0, 0.02)
                else:
                    tensor.zero_()
    else:
        model = build_model(job["model"]["config"])
        if way == "per-rank" or (way == "rank0" and rank == 0):
            model.load_state_dict(torch.load(data / "state.pt", map_location="cpu"))
        elif way == "mmap":
            load_mapped(model, data)
        if way == "rank0" and world > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)
    torch.set_default_dtype(torch.float32)
    return model


def load_mapped(model, data):
    import torch

    if (data / "state.safetensors").exists():
        from safetensors.torch import load_file

        state = load_file(data / "state.safetensors")
    else:
        state = torch.load(data / "state.pt", map_location="cpu", mmap=True)
    model.load_state_dict(state, strict=False)


def save(job, data, model, optimizer, rank):
    import threading

    import torch

    state = {"model": getattr(model, "module", model).state_dict(), "optimizer": optimizer.state_dict()}
    method = job["checkpoint"]["method"]
    if method == "sharded-sync":
        import torch.distributed.checkpoint as dcp

        dcp.save(state, checkpoint_id=str(data / "saved"))
        return
    if rank != 0:
        return
    file = data / "saved.pt"
    if method == "sync":
        torch.save(state, file)
    elif method == "async":
        staged = copied(state)
        writer = threading.Thread(target=torch.save, args=(staged, file))
        writer.start()
        writer.join()
    else:
        sys.exit("record_ram: no way to save with " + method)
    file.unlink()


def copied(state):
    import torch

    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list) else state


# --- the run ------------------------------------------------------------------------------------------------------

class Marks:
    """Tells the watcher that a phase has ended, when every rank is there."""

    def __init__(self, rank, world):
        self.rank, self.world = rank, world

    def at(self, phase):
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier()
        if self.rank == 0:
            print("at", phase, flush=True)
            sys.stdin.readline()
        if self.world > 1:
            dist.barrier()


def optimizer_of(job, model):
    import torch

    name = job["train"]["optimizer"]
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=1e-4)
    return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9 if name == "sgd-momentum" else 0.0)


def wait_until_full():
    """Until the workers rest: their queues are full then, as they are where steps take longer than batches."""
    import multiprocessing
    import time

    def spent():
        found = []
        for worker in multiprocessing.active_children():
            fields = pathlib.Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            found.append(int(fields[11]) + int(fields[12]))
        return found

    rested, before = 0, None
    while multiprocessing.active_children() and rested < 4:
        now = spent()
        rested = rested + 1 if now == before else 0
        before = now
        time.sleep(1.5)


def train(job, data, model, optimizer, passes):
    count = 0
    batches = batches_of(job, data)
    steps = len(dataset_of(job, data)) // job["train"]["micro_batch"] if passes else STEPS
    for batch in batches:
        outputs = loss_of(model, batch)
        scalar(outputs).backward()
        optimizer.step()
        optimizer.zero_grad()
        count += 1
        if count >= steps:
            break
    wait_until_full()
    return batches, batch, outputs


def run(job, data, port):
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    import torch

    torch.set_num_threads(1)
    if job["model"]["config"]["model_type"] == "torchvision_resnet":
        import torchvision  # noqa: F401
    else:
        import transformers  # noqa: F401
        from transformers import AutoModelForCausalLM, ViTForImageClassification  # noqa: F401
    if world > 1:
        torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    marks = Marks(rank, world)
    marks.at("startup")
    model = load(job, data, rank, world)
    marks.at("load")
    if world > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = optimizer_of(job, model)
    held = train(job, data, model, optimizer, job.get("whole_passes", False))
    marks.at("steady")
    if job["checkpoint"].get("every_steps"):
        save(job, data, model, optimizer, rank)
        marks.at("checkpoint")
    del held
    if world > 1:
        torch.distributed.barrier()
    if rank == 0:
        print("done", flush=True)
    os._exit(0)  # loader processes end with their parent


def prepare(job, data):
    """The files of a job: tokens, pictures made from photographs, a checkpoint of random weights."""
    import torch

    data.mkdir(parents=True, exist_ok=True)
    if job["data"]["kind"] == "tokens":
        import numpy

        numpy.random.default_rng(0).integers(0, 1000, 4_000_000, dtype=numpy.uint16).tofile(data / "tokens.bin")
    if job["data"]["kind"] == "jpeg":
        make_pictures(job, data / "pictures", pathlib.Path(os.environ["PHOTOGRAPHS"]))
    way = job["checkpoint"]["load"]
    if way == "meta":
        return
    torch.set_default_dtype(torch.bfloat16 if short(job) else torch.float32)
    state = build_model(job["model"]["config"]).state_dict()
    if way == "mmap" and "safetensors" in job.get("files", "safetensors"):
        from safetensors.torch import save_file

        save_file({key: value.clone() for key, value in state.items()}, data / "state.safetensors")
    else:
        torch.save(state, data / "state.pt")


def make_pictures(job, folder, photographs):
    from PIL import Image

    folder.mkdir(exist_ok=True)
    height, width = job["pictures"]
    sources = [Image.open(file).convert("RGB") for file in sorted(photographs.glob("*.jpg"))]
    if not sources:
        sys.exit(f"no *.jpg in {photographs}: --photographs names a folder of photographs to cut pictures from")
    for i in range(16):
        source = sources[i % len(sources)]
        part = min(source.width / width, source.height / height)
        left, top = (i * 37) % max(1, int(source.width - part * width)), 0
        box = (left, top, left + int(part * width), int(part * height))
        source.crop(box).resize((width, height)).save(folder / f"{i:04d}.jpg", quality=90)


if __name__ == "__main__":
    command, job_file, folder = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    job_read = json.loads(job_file.read_text(encoding="utf-8"))
    if command == "--prepare":
        prepare(job_read, folder)
    else:
        run(job_read, folder, int(sys.argv[4]))
