#!/usr/bin/env python3
"""Bytes alive in a step of a small UNet with and without gradient checkpointing, as diffusers runs it on a CPU.

    oracle_unet_checkpoint.py        needs torch and diffusers

Prints, per mode, what is alive beside parameters and batch when forward ends, and the peaks of both passes; storages
are rounded up to 512 bytes. tests/step/unet_checkpoint_test.cpp holds the figures of diffusers 0.39 and torch 2.6.
"""
import weakref

import torch
from diffusers import UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

CONFIG = {"sample_size": 32, "in_channels": 4, "out_channels": 4,
          "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
          "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "block_out_channels": (64, 128),
          "layers_per_block": 2, "cross_attention_dim": 96, "attention_head_dim": 8, "norm_num_groups": 32}


class Live(TorchDispatchMode):
    def __init__(self, base):
        super().__init__()
        self.base, self.known, self.now, self.peak = base, set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            if isinstance(value, torch.Tensor):
                self.meet(value.untyped_storage())
        return result

    def meet(self, storage):
        key, size = storage._cdata, -(-storage.nbytes() // 512) * 512
        if key in self.known or key in self.base:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.leave, key, size)

    def leave(self, key, size):
        self.known.discard(key)
        self.now -= size


def main():
    for checkpoints in (False, True):
        model = UNet2DConditionModel(**CONFIG).train()
        if checkpoints:
            model.enable_gradient_checkpointing()
        sample, steps = torch.randn(2, 4, 32, 32), torch.tensor([1, 2])
        context, target = torch.randn(2, 77, 96), torch.randn(2, 4, 32, 32)
        held = [*model.parameters(), *model.buffers(), sample, steps, context, target]
        with Live({tensor.untyped_storage()._cdata for tensor in held}) as live:
            loss = torch.nn.functional.mse_loss(model(sample, steps, context).sample, target)
            forward, forward_peak, live.peak = live.now, live.peak, live.now
            loss.backward()
            print("checkpointed" if checkpoints else "plain", forward, forward_peak, live.peak)


if __name__ == "__main__":
    main()
