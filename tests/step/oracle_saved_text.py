#!/usr/bin/env python3
"""Records what autograd keeps of tiny text models, for saved_text_models_test.cpp.

Optional: the results are recorded as data (saved_text_models.json), nothing in the build or the
tests runs this. It needs torch 2.6 or newer and transformers 4.49; `--new` records the rows that
have no `saved_bytes` yet, with the version that is there as their `source` (4.57 knows the newer
families). Each model runs forward on the CPU in fp32, or in the `dtype` of its row, without
dropout, in its own eager code; counted is every storage that a node saved and that still lives
after forward, once, without parameters, the batch and scalars; of a buffer of whole numbers the part that was read.
What the CPU's layer norm keeps of a row in bf16 counts as the fp32 that CUDA's keeps. Weights are
drawn with a deviation of 0.3, so that a router's choice is not the same for all tokens. Mixers of
state space run their code for CUDA over stand-ins of their kernels (oracle_scan_kernels.py).
"""
import gc
import json
import pathlib
import random
import sys
import weakref

import oracle_scan_kernels
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
BATCH, SOURCE, TARGET = 2, 12, 8
ALIASES = {"kimi_k2": "deepseek_v3", "mimo": "qwen2"}  # code of their own on the Hub, the same as that class
ENCODER_DECODERS = {"t5", "mt5", "bart", "mbart", "marian", "blenderbot", "pegasus"}


def build(config):
    values = dict(config)
    family = values.pop("model_type")
    named = values.pop("architectures", [None])[0]
    family = ALIASES.get(family, family)
    chosen = transformers.AutoConfig.for_model(family, **values)
    chosen._attn_implementation = "eager"
    if family in ("bamba", "falcon_h1", "granitemoehybrid", "jamba", "lfm2"):
        oracle_scan_kernels.install()
    if family in ("qwen3_next", "qwen3_5_text"):
        oracle_scan_kernels.install_delta(family)
    if named:
        return getattr(transformers, named)._from_config(chosen, attn_implementation="eager")
    auto = (transformers.AutoModelForSeq2SeqLM if family in ENCODER_DECODERS
            else transformers.AutoModelForCausalLM)
    return auto.from_config(chosen, attn_implementation="eager")


def batch_of(config):
    torch.manual_seed(0)
    vocabulary = config["vocab_size"]
    ids = torch.randint(3, vocabulary, (BATCH, SOURCE))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if config["model_type"] in ENCODER_DECODERS:
        batch["labels"] = torch.randint(3, vocabulary, (BATCH, TARGET))
        batch["decoder_input_ids"] = torch.randint(3, vocabulary, (BATCH, TARGET))
    else:
        batch["labels"] = torch.randint(3, vocabulary, (BATCH, SOURCE))
        if config["model_type"] in ("electra", "xlm-roberta"):
            batch["token_type_ids"] = torch.zeros_like(ids)
    return batch


class LayerNorms:
    """Whether one runs just now."""
    running = False

    def __init__(self):
        kernel = torch.nn.functional.layer_norm

        def watched(*values, **named):
            self.running = True
            result = kernel(*values, **named)
            self.running = False
            return result

        torch.nn.functional.layer_norm = watched


LAYER_NORMS = LayerNorms()


class Box:
    """Holds a saved tensor's memory as long as its node lives; not the node, which holds the box."""

    def __init__(self, tensor, size):
        self.tensor, self.size = tensor.detach(), size


def saved_bytes(config, dtype="float32"):
    random.seed(0)
    torch.manual_seed(0)
    model = build(config).to(getattr(torch, dtype)).train()
    for name, module in model.named_modules():  # as from_pretrained leaves them
        if name.rpartition(".")[2] in (model._keep_in_fp32_modules_strict or ()):
            module.float()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    batch = batch_of(config)
    outside = {p.untyped_storage().data_ptr() for p in model.parameters()}
    buffers = {b.untyped_storage().data_ptr() for b in model.buffers()}
    outside |= {t.untyped_storage().data_ptr() for t in batch.values()}
    boxes = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        scalar = storage.nbytes() <= 8 and tensor.dim() == 0
        if scalar or storage.data_ptr() in outside:
            return tensor
        part = storage.data_ptr() in buffers
        if part and tensor.is_floating_point():
            return tensor
        size = tensor.numel() * tensor.element_size() if part else storage.nbytes()
        if LAYER_NORMS.running and tensor.shape[-1] == 1 and tensor.element_size() == 2:
            size *= 2
        box = Box(tensor, size)
        boxes.append(weakref.ref(box))
        return box

    def unpack(packed):
        return packed.tensor if isinstance(packed, Box) else packed

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        encoder = type(model).__name__.endswith("ForMaskedLM")
        loss = model(**batch, **({} if encoder else {"use_cache": False})).loss
    assert loss.requires_grad
    gc.collect()
    held = [box() for box in boxes if box() is not None]
    seen = {box.tensor.untyped_storage().data_ptr(): (box.size, box.tensor) for box in held}
    return sum(nbytes for nbytes, _ in seen.values()), seen


def main():
    path = HERE / "saved_text_models.json"
    recorded = json.loads(path.read_text())
    rows = []
    only_new = "--new" in sys.argv[1:]
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    for row in recorded["models"]:
        if ("saved_bytes" in row) if only_new else ("source" in row):
            rows.append(row)
            continue
        row = {**row, "saved_bytes": saved_bytes(row["config"], row.get("dtype", "float32"))[0]}
        rows.append({**row, "source": versions} if only_new else row)
    head = {"schema": "steelyard.saved_text_models/1",
            "source": (recorded["source"] if only_new
                       else f"{versions}, CPU, fp32, eager attention"),
            "batch": BATCH, "sequence": SOURCE, "decoder_sequence": TARGET}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    models = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{{{lines},\n"models": [\n{models}\n]}}\n')


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main()
