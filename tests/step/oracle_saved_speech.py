#!/usr/bin/env python3
"""Records tiny speech models of transformers: what autograd keeps of them and what their state dicts
hold, for saved_speech_models_test.cpp and speech_test.cpp of the room model.

Optional: the results are recorded as data (speech_models.json), nothing in the build or the tests
runs this. It needs torch 2.6 or newer and transformers 4.49. Each model runs forward on the CPU in
fp32, without dropout, in its own eager code; counted is every storage that a node saved, once,
without parameters, the batch and scalars; of a buffer the part that was read. `frozen` freezes the
modules of that name first.
"""
import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
BATCH, SAMPLES, LABELS = 2, 16000, 9
CLASSES = {"whisper": "WhisperForConditionalGeneration", "wav2vec2": "Wav2Vec2ForCTC",
           "hubert": "HubertForCTC"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 48, "conv_dim": [24, 24, 24], "conv_kernel": [10, 3, 2],
         "conv_stride": [5, 4, 4], "num_conv_pos_embeddings": 16,
         "num_conv_pos_embedding_groups": 4, "vocab_size": 32, "hidden_dropout": 0.0,
         "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0,
         "final_dropout": 0.0}
LARGE = {"conv_bias": True, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
WHISPER = {"model_type": "whisper", "vocab_size": 101, "d_model": 32, "encoder_layers": 3,
           "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 2,
           "encoder_ffn_dim": 48, "decoder_ffn_dim": 40, "num_mel_bins": 10,
           "max_source_positions": 50, "max_target_positions": 16}
MODELS = [
    {"config": {"model_type": "wav2vec2", **SMALL}},
    {"config": {"model_type": "wav2vec2", **SMALL, "mask_time_prob": 0.0}},
    {"config": {"model_type": "wav2vec2", **SMALL}, "frozen": ["feature_extractor"]},
    {"config": {"model_type": "wav2vec2", **SMALL, **LARGE}},
    {"config": {"model_type": "wav2vec2", **SMALL, **LARGE, "num_conv_pos_embeddings": 15},
     "frozen": ["feature_extractor"]},
    {"config": {"model_type": "hubert", **SMALL}},
    {"config": {"model_type": "hubert", **SMALL, **LARGE, "feat_proj_layer_norm": False}},
    {"config": {"model_type": "hubert", "architectures": ["HubertForSequenceClassification"],
                **SMALL, "num_labels": 5, "classifier_proj_size": 20}},
    {"config": WHISPER},
    {"config": WHISPER, "frozen": ["model.encoder"]},
]


def build(config):
    values = dict(config)
    family = values.pop("model_type")
    named = values.pop("architectures", [CLASSES[family]])[0]
    labels = values.pop("num_labels", None)
    if labels:
        values["num_labels"] = labels
    chosen = transformers.AutoConfig.for_model(family, layerdrop=0.0, pad_token_id=0, **values) \
        if family != "whisper" else transformers.AutoConfig.for_model(
            family, pad_token_id=0, decoder_start_token_id=1, **values)
    chosen._attn_implementation = "eager"
    return getattr(transformers, named)._from_config(chosen, attn_implementation="eager")


def batch_of(config):
    torch.manual_seed(0)
    if config["model_type"] == "whisper":
        columns = 2 * config["max_source_positions"]
        return {"input_features": torch.randn(BATCH, config["num_mel_bins"], columns),
                "decoder_input_ids": torch.randint(3, 101, (BATCH, LABELS)),
                "labels": torch.randint(3, 101, (BATCH, LABELS))}
    batch = {"input_values": torch.randn(BATCH, SAMPLES)}
    if config.get("feat_extract_norm") == "layer":
        batch["attention_mask"] = torch.ones(BATCH, SAMPLES, dtype=torch.int32)
    if config.get("architectures"):
        batch["labels"] = torch.randint(0, config["num_labels"], (BATCH,))
    else:
        batch["labels"] = torch.randint(1, config["vocab_size"], (BATCH, LABELS))
    return batch


def freeze(model, names):
    for name in names:
        if name == "feature_extractor":
            model.freeze_feature_encoder()
            continue
        for parameter in model.get_submodule(name).parameters():
            parameter.requires_grad = False


def saved_bytes(model, batch, detail=None):
    outside = {p.untyped_storage().data_ptr() for p in model.parameters()}
    buffers = {b.untyped_storage().data_ptr() for b in model.buffers()}
    outside |= {t.untyped_storage().data_ptr() for t in batch.values()}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in outside and storage.nbytes() > 8:
            part = storage.data_ptr() in buffers
            size = tensor.numel() * tensor.element_size() if part else storage.nbytes()
            seen.setdefault(storage.data_ptr(), (size, tensor))  # kept alive: no address twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        whisper = type(model).__name__.startswith("Whisper")
        loss = model(**batch, **({"use_cache": False} if whisper else {})).loss
    assert loss.requires_grad
    if detail is not None:
        detail += [(size, tensor.dtype, tuple(tensor.shape), type(tensor.grad_fn).__name__)
                   for size, tensor in seen.values()]
    return sum(size for size, _ in seen.values())


def outputs_of(model, batch):
    outputs = {}

    def watch(name):
        def hook(module, inputs, output):
            if torch.is_tensor(output):
                outputs.setdefault(name, list(output.shape))
        return hook

    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_hook(watch(name))
    with torch.no_grad():
        model.eval()(**batch)
    return outputs


def row_of(model_row):
    config = model_row["config"]
    model, batch = build(config).train(), batch_of(config)
    freeze(model, model_row.get("frozen", []))
    saved = saved_bytes(model, batch)
    return {**model_row, "saved_bytes": saved,
            "parameters": sum(p.numel() for p in model.parameters()),
            "weights": {name: list(p.shape)
                        for name, p in model.named_parameters(remove_duplicate=False)},
            "outputs": outputs_of(model, batch)}


def main():
    head = {"schema": "steelyard.speech_models/1",
            "source": f"oracle_saved_speech.py: transformers {transformers.__version__}, torch "
                      f"{torch.__version__.split('+')[0]}, CPU, fp32, eager attention",
            "batch": BATCH, "audio_seconds": SAMPLES / 16000, "decoder_sequence": LABELS}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    models = ",\n".join(json.dumps(row_of(row)) for row in MODELS)
    (HERE / "speech_models.json").write_text(f'{{{lines},\n"models": [\n{models}\n]}}\n')


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main()
