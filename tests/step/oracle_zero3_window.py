#!/usr/bin/env python3
"""Elements that DeepSpeed's ZeRO-3 holds gathered in a step, traced in DeepSpeed itself on CPU ranks.

    for r in 1 0; do MASTER_ADDR=localhost MASTER_PORT=29511 RANK=$r WORLD_SIZE=2 LOCAL_RANK=$r \
        oracle_zero3_window.py [ckpt] [tied] [lora] [dump] & done; wait       needs torch, transformers, deepspeed

A Llama of 8 B and DeepSpeed's limits, both scaled down 256 times (tied: a head of 1.03e9 elements); printed in 1e9
elements of the full size, per step and pass: what the coordinator counts as available, parameters that are there, flat
buffers in flight. Steps 0 and 1 record the trace. tests/step/zero3_window_test.cpp holds the figures of 0.19.8.
"""
import os
import sys
import weakref

os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed
import torch
from deepspeed.runtime.zero import partition_parameters, partitioned_param_coordinator
from transformers import LlamaConfig, LlamaForCausalLM

SCALE = 256
CONFIG = {"bf16": {"enabled": True}, "train_micro_batch_size_per_gpu": 1,
          "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True}},
          "zero_optimization": {"stage": 3, "overlap_comm": True, "contiguous_gradients": True,
                                "stage3_max_live_parameters": 1e9 / SCALE,
                                "stage3_max_reuse_distance": 1e9 / SCALE,
                                "stage3_prefetch_bucket_size": int(5e7 / SCALE),
                                "stage3_param_persistence_threshold": int(1e5 / SCALE),
                                "reduce_bucket_size": int(5e8 / SCALE)}}
ROWS, HANDLES = [], weakref.WeakSet()


def elements(tensors):
    """Of bf16 storages, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}
    return sum(storages.values()) / 2 * SCALE / 1e9


def watch(model):
    coordinator = partitioned_param_coordinator.PartitionedParameterCoordinator
    handle = partition_parameters.AllGatherCoalescedHandle
    made, fetched, released = handle.__init__, coordinator.fetch_sub_module, coordinator.release_sub_module

    def note(self, what, module):
        available = self._PartitionedParameterCoordinator__n_available_params * SCALE / 1e9
        flat = elements(part for each in HANDLES for part in (each.partitions or []))
        ROWS.append((what, module.path, available, elements(p.data for p in model.parameters()), flat))

    def make(self, *given, **named):
        made(self, *given, **named)
        HANDLES.add(self)

    def fetch(self, module, forward):
        fetched(self, module, forward)
        note(self, "fetch", module)

    def release(self, module, forward=False):
        released(self, module, forward)
        note(self, "release", module)

    handle.__init__, coordinator.fetch_sub_module, coordinator.release_sub_module = make, fetch, release
    for path, module in model.named_modules():
        module.path = path


def main():
    rank = int(os.environ.get("RANK", "0"))
    deepspeed.init_distributed(dist_backend="gloo")
    tied = "tied" in sys.argv
    with deepspeed.zero.Init(config_dict_or_path=CONFIG):
        model = LlamaForCausalLM(LlamaConfig(
            hidden_size=256, num_hidden_layers=16, num_attention_heads=8, num_key_value_heads=2,
            intermediate_size=896, vocab_size=15680 if tied else 8016, tie_word_embeddings=tied))
    if "lora" in sys.argv:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "q_proj" in name
    if "ckpt" in sys.argv:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    engine, _, _, _ = deepspeed.initialize(
        model=model, config=CONFIG, model_parameters=[p for p in model.parameters() if p.requires_grad])
    watch(engine.module)
    tokens = torch.randint(0, 8000, (1, 64))
    for step in range(4):
        ROWS.clear()
        loss = engine(input_ids=tokens, labels=tokens).loss
        forward = len(ROWS)
        engine.backward(loss)
        engine.step()
        if rank == 0:
            for name, rows in (("forward", ROWS[:forward]), ("backward", ROWS[forward:])):
                print(step, name, *(f"{what} {max(row[at] for row in rows):.2f}"
                                    for at, what in ((2, "available"), (3, "parameters"), (4, "flat"))))
    if rank == 0 and "dump" in sys.argv:
        for row in ROWS:
            print(row[0], row[1], *(f"{value:.2f}" for value in row[2:]))


if __name__ == "__main__":
    main()
