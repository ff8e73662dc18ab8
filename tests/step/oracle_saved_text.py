#!/usr/bin/env python3
"""Records what autograd keeps of tiny text models, for saved_text_models_test.cpp.

Optional: the results are recorded as data (saved_text_models.json), nothing in the build or the
tests runs this. It needs torch 2.6 or newer and transformers 4.49. Each model runs forward on the
CPU in fp32, without dropout, in its own eager code; counted is every storage that a node saved,
once, without parameters, the batch and scalars; of a buffer the part that was read.
"""
import json
import pathlib
import random

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
BATCH, SOURCE, TARGET = 2, 12, 8
ENCODER_DECODERS = {"t5", "mt5", "bart", "mbart", "marian", "blenderbot", "pegasus"}


def build(config):
    values = dict(config)
    family = values.pop("model_type")
    named = values.pop("architectures", [None])[0]
    chosen = transformers.AutoConfig.for_model(family, **values)
    chosen._attn_implementation = "eager"
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
        if config.get("architectures"):
            batch["token_type_ids"] = torch.zeros_like(ids)
    return batch


def saved_bytes(config):
    random.seed(0)
    model = build(config).train()
    batch = batch_of(config)
    outside = {p.untyped_storage().data_ptr() for p in model.parameters()}
    buffers = {b.untyped_storage().data_ptr() for b in model.buffers()}
    outside |= {t.untyped_storage().data_ptr() for t in batch.values()}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in outside and storage.nbytes() > 8:
            part = storage.data_ptr() in buffers
            size = tensor.numel() * tensor.element_size() if part else storage.nbytes()
            seen[storage.data_ptr()] = (size, tensor)  # kept alive: no address twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        encoder = type(model).__name__.endswith("ForMaskedLM")
        loss = model(**batch, **({} if encoder else {"use_cache": False})).loss
    assert loss.requires_grad
    return sum(nbytes for nbytes, _ in seen.values()), seen


def main():
    path = HERE / "saved_text_models.json"
    recorded = json.loads(path.read_text())
    rows = []
    for row in recorded["models"]:
        config = row["config"]
        rows.append({"config": config, "saved_bytes": saved_bytes(config)[0]})
    head = {"schema": "steelyard.saved_text_models/1",
            "source": f"transformers {transformers.__version__}, torch "
                      f"{torch.__version__.split('+')[0]}, CPU, fp32, eager attention",
            "batch": BATCH, "sequence": SOURCE, "decoder_sequence": TARGET}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    models = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{{{lines},\n"models": [\n{models}\n]}}\n')


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main()
