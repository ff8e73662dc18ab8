#!/usr/bin/env python3
"""Measures what vision_saved_test.cpp compares with: the bytes that one forward pass of networks of
timm and torchvision saves for backward, on the CPU in fp32, unique storages without parameters,
buffers, pictures and labels. Optional: the results are recorded in vision_saved.json.

Needs torch, timm and torchvision. Dropout is off: its mask is a byte on CUDA and wider on a CPU.
"""
import json
import pathlib

import timm
import torch
import torchvision

HERE = pathlib.Path(__file__).resolve().parent
NETWORKS = [("timm/resnet18", 64), ("timm/efficientnet_b0", 64), ("timm/efficientnetv2_s", 64),
            ("timm/mobilenetv2_100", 64), ("timm/mobilenetv3_large_100", 64),
            ("timm/densenet121", 64), ("timm/regnety_002", 64), ("timm/vgg11_bn", 224),
            ("timm/convnext_tiny", 64), ("timm/swin_tiny_patch4_window7_224", 224),
            ("timm/mixer_s32_224", 224),
            ("torchvision/efficientnet_b0", 64), ("torchvision/mobilenet_v3_small", 64),
            ("torchvision/mobilenet_v2", 64), ("torchvision/convnext_tiny", 64),
            ("torchvision/swin_t", 64), ("torchvision/densenet121", 64)]
BATCH = 2


def build(name):
    library, model = name.split("/")
    network = timm.create_model(model) if library == "timm" else getattr(torchvision.models, model)()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network.train()


def saved_bytes(network, side):
    pictures, labels = torch.randn(BATCH, 3, side, side), torch.randint(0, 1000, (BATCH,))
    storage = lambda tensor: tensor.untyped_storage()
    own = {storage(t).data_ptr()
           for t in [*network.parameters(), *network.buffers(), pictures, labels]}
    found = {}

    def pack(tensor):
        if storage(tensor).data_ptr() not in own and tensor.dim() > 0:
            found[storage(tensor).data_ptr()] = (storage(tensor).nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        torch.nn.functional.cross_entropy(network(pictures), labels)
    return sum(size for size, _ in found.values())


rows = [{"id": name, "side": side, "bytes": saved_bytes(build(name), side)}
        for name, side in NETWORKS]
versions = (f"torch {torch.__version__.split('+')[0]}, timm {timm.__version__}, "
            f"torchvision {torchvision.__version__.split('+')[0]}")
lines = ",\n".join(json.dumps(row) for row in rows)
(HERE / "vision_saved.json").write_text(
    f'{{"source": "vision_saved.py: {versions}",\n"batch": {BATCH},\n"rows": [\n{lines}\n]}}\n')
