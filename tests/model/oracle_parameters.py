#!/usr/bin/env python3
"""Recomputes with transformers what the tests of this room compare with.

Optional: the results are recorded as data, nothing in the build or the tests runs this. It needs
the Python packages torch (2.6 or newer) and transformers; catalogue models are built on the meta
device, so that even the largest needs no memory.

  oracle_parameters.py            published_parameters.json: the parameters of every catalogue model
  oracle_parameters.py --states   state_dicts.json: the tiny models named there, run once
  oracle_parameters.py --new      state_dicts.json: those of them that were not run yet
"""
import json
import pathlib
import sys

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "catalog" / "models"
BATCH, SEQUENCE = 2, 8
SIDE = 224  # pixels, of a network that takes any
VERSIONS = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
# transformers 5 calls the head lm_head; checkpoints and transformers 4 say embed_out.
RENAMED = {"gpt_neox": ("lm_head", "embed_out")}


# Files of the Hub with code of their own, which is that of a class of transformers.
ALIASES = {"kimi_k2": "deepseek_v3", "mimo": "qwen2"}

# The classes whose parameters the graph counts where a configuration does not name one.
PICTURES = {"vit": "ViTForImageClassification", "deit": "DeiTForImageClassification",
            "resnet": "ResNetForImageClassification"}
ENCODER_DECODERS = ("bart", "blenderbot", "marian", "mbart", "mt5", "pegasus", "t5")
# The bias of a tied output projection bears two names, the embedding of an encoder-decoder three;
# the graph has the last one, and the encoder's.
TWICE = ("cls.predictions.bias", "lm_head.bias", "shared.weight", "model.shared.weight")


def add_further_layers(model, config):
    """What MiMo's class holds beside Qwen 2's: layers that its forward never runs."""
    from transformers.models.qwen2 import modeling_qwen2
    layers = torch.nn.ModuleList()
    for _ in range(config.num_nextn_predict_layers):
        layer = modeling_qwen2.Qwen2DecoderLayer(config, 0)
        for name in ("token_layernorm", "hidden_layernorm", "final_layernorm"):
            setattr(layer, name, modeling_qwen2.Qwen2RMSNorm(config.hidden_size))
        layer.input_proj = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        layers.append(layer)
    model.model.mtp_layers = layers


def on_the_cpu(make):
    def made(*values, **named):
        with torch.device("cpu"):  # reads its numbers back
            make(*values, **named)
    return made


XIELU = transformers.activations.XIELUActivation
XIELU.__init__ = on_the_cpu(XIELU.__init__)


def build(config, **how):
    values = dict(config)
    family = values.pop("model_type")
    named = values.pop("architectures", [PICTURES.get(family)])[0]
    family = ALIASES.get(family, family)
    chosen = transformers.AutoConfig.for_model(family, **values)
    if named is None and family in ENCODER_DECODERS:
        model = transformers.AutoModelForSeq2SeqLM.from_config(chosen, **how)
    elif named:
        model = getattr(transformers, named)._from_config(chosen, **how)
    else:
        model = transformers.AutoModelForCausalLM.from_config(chosen, **how)
    if config["model_type"] == "mimo":
        with torch.device(model.device):
            add_further_layers(model, chosen)
    model.tie_weights()  # parameters() then counts a shared one once
    return model


def library_row(entry):
    """A network that timm or torchvision builds from its name alone."""
    library, name = entry["id"].split("/")
    module = __import__(library)
    make = module.create_model if library == "timm" else None
    with torch.device("meta"):
        model = make(name) if make else getattr(module.models, name)()
    source = f"{library} {module.__version__.split('+')[0]}: the class's parameters"
    return {"id": entry["id"], "parameters": sum(p.numel() for p in model.parameters()),
            "source": source}


# timm's own defaults have no classifier; the catalogue's have one of 1000 classes.
WITHOUT_HEAD = ("timm/vit_huge_patch14_224", "timm/vit_large_patch32_224")


def catalogue():
    rows = []
    for path in sorted(MODELS.glob("**/*.json")):
        entry = json.loads(path.read_text())
        if path.parent.name in ("timm", "torchvision"):
            if entry["id"] not in WITHOUT_HEAD:
                rows.append(library_row(entry))
            continue
        if entry["config"].get("model_type") not in transformers.CONFIG_MAPPING:
            continue  # of diffusers: its publishers' counts are in the entry
        with torch.device("meta"):
            model = build(entry["config"])
        parameters = sum(p.numel() for p in model.parameters())
        published = entry.get("published_parameters")
        if published not in (None, parameters):
            sys.exit(f"{path.name}: published {published}, transformers counts {parameters}")
        source = VERSIONS + (f"; {entry['published_source']}" if published else "")
        rows.append({"id": entry["id"], "parameters": parameters, "source": source})
    text = ",\n".join(json.dumps(row) for row in rows)
    (HERE / "published_parameters.json").write_text(f'{{"rows": [\n{text}\n]}}\n')


# Modules that multiply by parameters of their own; a choice is as wide as the configuration says.
ROUTERS = ("DeepseekV2MoEGate", "DeepseekV3TopkRouter", "Dots1TopkRouter", "Glm4MoeTopkRouter",
           "GptOssTopKRouter", "Llama4Router")
EXPERTS = ("GptOssExperts", "Llama4TextExperts")


def own_flops(module, inputs, config):
    kind = type(module).__name__
    if kind in ROUTERS:
        return 2 * inputs[0].numel() * module.weight.shape[0]
    if kind == "Conv1d" and config["model_type"] == "lfm2":  # a mixer by itself
        return 2 * BATCH * SEQUENCE * module.weight.numel()
    if kind == "DbrxExpertGLU":  # called for each expert with its tokens
        return 6 * inputs[0].numel() * module.ffn_hidden_size
    if kind in EXPERTS:  # MFU counts the experts of the choice alone
        tokens = BATCH * SEQUENCE * config.get("num_experts_per_tok", 1)
        return 6 * tokens * module.hidden_size * module.expert_dim
    return 0


def observed(config):
    """One eager forward: weights, outputs of the modules that hold parameters, matrix products."""
    model = build(config, attn_implementation="eager").eval()
    outputs, flops = {}, [0]
    old, new = RENAMED.get(config["model_type"], ("", ""))

    def watch(name):
        def hook(module, inputs, output):
            flops[0] += own_flops(module, inputs, config)
            if not isinstance(output, torch.Tensor):
                return  # attention with a parameter of its own, a router
            shape = list(output.shape)
            if type(module).__name__ == "Conv1d":  # causal: what lies behind is cut off
                shape[-1] = min(shape[-1], SEQUENCE)
            outputs.setdefault(name.replace(old, new) if old else name, shape)
            if type(module).__name__ in ("Linear", "Conv1D", "FalconLinear",
                                         "GraniteMoeParallelExperts",
                                         "GraniteMoeHybridParallelExperts"):
                flops[0] += 2 * inputs[0].numel() * output.shape[-1]
            if type(module).__name__ == "Conv2d":
                flops[0] += 2 * output.numel() * module.weight[0].numel()
        return hook

    for name, module in model.named_modules(remove_duplicate=False):
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_hook(watch(name))
    with torch.no_grad():
        if config["model_type"] in PICTURES:
            side = config.get("image_size", SIDE)
            model(pixel_values=torch.zeros((BATCH, 3, side, side)))
        elif config["model_type"] in ENCODER_DECODERS:
            ids = torch.zeros((BATCH, SEQUENCE), dtype=torch.long)
            model(input_ids=ids, decoder_input_ids=ids)
        else:
            model(input_ids=torch.zeros((BATCH, SEQUENCE), dtype=torch.long))
    named = ((f"{module}.{name}" if module else name, value)
             for module, owner in model.named_modules(remove_duplicate=False)
             for name, value in owner.named_parameters(recurse=False))  # tied ones too
    weights = {(name.replace(old, new) if old else name): list(value.shape)
               for name, value in named if name not in TWICE}
    return {"config": config, "parameters": sum(p.numel() for p in model.parameters()),
            "linear_flops": flops[0], "weights": weights, "outputs": outputs}


def states(only_new=False):
    path = HERE / "state_dicts.json"
    recorded = json.loads(path.read_text())
    rows = [model if only_new and "weights" in model
            else {**observed(model["config"]), **({"source": VERSIONS} if only_new else {})}
            for model in recorded["models"]]
    head = {"schema": "steelyard.state_dicts/1",
            "source": f"{VERSIONS}: named parameters (tied ones too) of a model of each config, "
                      "and of one eager forward the output shapes of the modules that hold "
                      "parameters and 2 * inputs * output features summed over the linears; "
                      "gpt_neox's head bears the name of its checkpoints and of transformers 4, "
                      "embed_out",
            "batch": BATCH, "sequence": SEQUENCE}
    if only_new:
        head["source"] = recorded["source"]
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    models = ",\n".join("{" + ",\n ".join(f"{json.dumps(key)}: {json.dumps(value)}"
                                          for key, value in row.items()) + "}" for row in rows)
    path.write_text(f'{{{lines},\n"models": [\n{models}\n]}}\n')


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    if "--new" in sys.argv[1:]:
        states(only_new=True)
    else:
        states() if "--states" in sys.argv[1:] else catalogue()
