"""Records small models that read pictures: state dicts, module outputs and linears (state_dicts.json of the room model,
its rows of models with pictures) and what autograd keeps of them (saved_picture_text_models.json).

Optional: nothing in the build or the tests runs this. Needs torch 2.6 and transformers 4.49, or 4.57 where a row names
it as its source. `state` prints the rows of all models; `--new` adds to both files the models that they lack.
"""

import json, pathlib, sys, torch, transformers

transformers.logging.set_verbosity_error()
B, S = 2, 40
CLIPV = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
    "projection_dim": 24,
}
SIGV = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
LL = {
    "model_type": "llama",
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GE = {
    "model_type": "gemma",
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
GE2 = dict(GE, model_type="gemma2", num_hidden_layers=4, num_key_value_heads=2, sliding_window=8)
T = lambda d: {k: v for k, v in d.items() if k != "model_type"}
MODELS = [
    {
        "model_type": "clip",
        "projection_dim": 24,
        "text_config": {
            "vocab_size": 211,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 40,
        },
        "vision_config": T(CLIPV),
    },
    {
        "model_type": "clip",
        "architectures": ["CLIPForImageClassification"],
        "num_labels": 7,
        "projection_dim": 24,
        "vision_config": T(CLIPV),
    },
    CLIPV,
    {
        "model_type": "siglip",
        "text_config": {
            "vocab_size": 211,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 40,
        },
        "vision_config": T(SIGV),
    },
    SIGV,
    {"model_type": "llava", "image_token_index": 200, "text_config": LL, "vision_config": CLIPV},
    {
        "model_type": "llava",
        "image_token_index": 200,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "text_config": dict(LL, model_type="qwen2"),
        "vision_config": SIGV,
    },
    {
        "model_type": "paligemma",
        "image_token_index": 200,
        "hidden_size": 64,
        "projection_dim": 64,
        "text_config": GE,
        "vision_config": dict(SIGV, projection_dim=64, vision_use_head=False),
    },
    {
        "model_type": "paligemma",
        "image_token_index": 200,
        "hidden_size": 64,
        "projection_dim": 64,
        "text_config": GE2,
        "vision_config": dict(SIGV, projection_dim=64, vision_use_head=False),
    },
    {
        "model_type": "qwen2_vl",
        "image_token_id": 200,
        "video_token_id": 202,
        "vision_start_token_id": 201,
        "vocab_size": 211,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": {
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 4,
        },
    },
    {
        "model_type": "qwen3_vl",
        "image_token_id": 200,
        "video_token_id": 202,
        "vision_start_token_id": 201,
        "text_config": {
            "tie_word_embeddings": True,
            "vocab_size": 211,
            "hidden_size": 64,
            "intermediate_size": 112,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 64,
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2]},
        },
        "vision_config": {
            "depth": 4,
            "hidden_size": 32,
            "out_hidden_size": 64,
            "intermediate_size": 40,
            "num_heads": 4,
            "patch_size": 4,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 2],
        },
    },
    {
        "model_type": "qwen3_5",
        "image_token_id": 200,
        "video_token_id": 202,
        "vision_start_token_id": 201,
        "text_config": {
            "vocab_size": 211,
            "hidden_size": 64,
            "intermediate_size": 112,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 12,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25,
                                "mrope_section": [1, 1, 0]},
        },
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "out_hidden_size": 64,
            "intermediate_size": 40,
            "num_heads": 4,
            "patch_size": 4,
            "num_position_embeddings": 64,
        },
    },
    {
        "model_type": "qwen2_5_vl",
        "image_token_id": 200,
        "video_token_id": 202,
        "vision_start_token_id": 201,
        "vocab_size": 211,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": {
            "depth": 3,
            "hidden_size": 32,
            "out_hidden_size": 64,
            "intermediate_size": 40,
            "num_heads": 4,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
    },
]
TINY = {"image_size": 32, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
DINO = {"model_type": "dinov2", "patch_size": 8, "mlp_ratio": 2, **TINY}
SWIN = {"model_type": "swin", "embed_dim": 16, "depths": [2, 3], "num_heads": [2, 4], "window_size": 4, "mlp_ratio": 2}
SEGFORMER = {
    "model_type": "segformer",
    "image_size": 64,
    "hidden_sizes": [16, 32, 40, 48],
    "depths": [2, 1, 2, 1],
    "num_attention_heads": [1, 2, 5, 6],
    "mlp_ratios": [2, 2, 3, 3],
    "decoder_hidden_size": 24,
}
CONVNEXT = {"model_type": "convnext", "image_size": 64, "hidden_sizes": [16, 24, 32], "depths": [2, 3, 1], "num_stages": 3}
MODELS += [
    DINO,
    {**DINO, "use_swiglu_ffn": True, "image_size": 64, "num_labels": 5, "qkv_bias": False},
    {**DINO, "model_type": "dinov2_with_registers", "num_register_tokens": 3},
    {"model_type": "beit", "patch_size": 8, "intermediate_size": 48, "use_relative_position_bias": True, **TINY},
    {
        "model_type": "beit",
        "patch_size": 8,
        "intermediate_size": 48,
        "use_absolute_position_embeddings": True,
        "use_mask_token": True,
        "use_mean_pooling": False,
        "layer_scale_init_value": 0.0,
        "drop_path_rate": 0.0,
        **TINY,
    },
    {**SWIN, "image_size": 64},
    {**SWIN, "image_size": 56, "drop_path_rate": 0.0, "depths": [2, 2, 2], "num_heads": [2, 2, 4]},
    CONVNEXT,
    {**CONVNEXT, "layer_scale_init_value": 0.0, "drop_path_rate": 0.1},
    {**CONVNEXT, "model_type": "convnextv2"},
    {**SEGFORMER, "architectures": ["SegformerForImageClassification"]},
    {**SEGFORMER, "architectures": ["SegformerForSemanticSegmentation"], "num_labels": 7, "classifier_dropout_prob": 0.0},
]
INTERNV = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
INTERNVL = {
    "model_type": "internvl",
    "image_token_id": 200,
    "text_config": dict(LL, model_type="qwen2"),
    "vision_config": {**INTERNV, "image_size": [32, 32], "patch_size": [4, 4]},
}
MODELS += [
    INTERNVL,
    {
        **INTERNVL,
        "text_config": dict(LL, model_type="qwen3", head_dim=16),
        "vision_config": {
            **INTERNV,
            "image_size": 32,
            "patch_size": 4,
            "use_qk_norm": True,
            "norm_type": "rms_norm",
            "attention_bias": True,
            "use_mean_pooling": False,
        },
    },
]
MLLAMA = {
    "model_type": "mllama",
    "text_config": {
        **{k: v for k, v in LL.items() if k != "model_type"},
        "num_hidden_layers": 5,
        "cross_attention_layers": [1, 3],
        "rope_scaling": {"rope_type": "default"},
        "pad_token_id": 0,
    },
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_global_layers": 2,
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 4,
        "vision_output_dim": 96,
        "intermediate_layers_indices": [1, 3],
        "max_num_tiles": 2,
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
    },
}
MODELS += [MLLAMA]
GE3 = dict(
    GE, model_type="gemma3_text", num_hidden_layers=4, num_key_value_heads=2, sliding_window=8, sliding_window_pattern=3
)
MODELS += [
    {
        "model_type": "gemma3",
        "image_token_index": 200,
        "mm_tokens_per_image": 4,
        "text_config": GE3,
        "vision_config": dict(SIGV, vision_use_head=False),
    },
]
IDEFICS = {
    "model_type": "idefics3",
    "image_token_id": 200,
    "scale_factor": 2,
    "text_config": LL,
    "vision_config": {k: v for k, v in SIGV.items() if k != "model_type"},
}
MODELS += [IDEFICS, {**IDEFICS, "model_type": "smolvlm", "text_config": dict(LL, tie_word_embeddings=True)}]
SWIN2 = {**SWIN, "model_type": "swinv2"}
MODELS += [{**SWIN2, "image_size": 64}, {**SWIN2, "image_size": 32, "drop_path_rate": 0.0, "depths": [2, 2], "window_size": 8}]
MODELS += [
    {
        "model_type": "detr",
        "backbone": "resnet18",
        "use_pretrained_backbone": False,
        "d_model": 32,
        "num_queries": 10,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 40,
        "dropout": 0.0,  # on a CPU its noise is kept in fp32
        "num_labels": 7,
    }
]
# transformers from 4.52 on names parts otherwise than checkpoints do; the graph bears the checkpoints' names.
RENAMED = {
    "gemma3": [
        ("model.language_model", "language_model.model"),
        ("lm_head", "language_model.lm_head"),
        ("model.vision_tower", "vision_tower"),
        ("model.multi_modal_projector", "multi_modal_projector"),
    ],
}


def named(c, name):
    for now, then in RENAMED.get(c["model_type"], ()):
        if name.startswith(now):
            return then + name[len(now) :]
    return name


VISION = ("beit", "convnext", "convnextv2", "detr", "dinov2", "dinov2_with_registers", "segformer", "swin", "swinv2")
NO_KERNEL = ("convnext", "convnextv2", "detr", "segformer", "swin", "swinv2")  # their code asks for no attention
SIDES = {"qwen2_vl": 32, "qwen2_5_vl": 32, "qwen3_vl": 32, "qwen3_5": 32, "detr": 96}


def build(c, **how):
    v = dict(c)
    f = v.pop("model_type")
    a = v.pop("architectures", None)
    v = json.loads(json.dumps(v))
    cfg = transformers.AutoConfig.for_model(f, **v)
    cls = {
        "clip": "CLIPModel",
        "siglip": "SiglipModel",
        "clip_vision_model": "CLIPVisionModel",
        "siglip_vision_model": "SiglipVisionModel",
        "llava": "LlavaForConditionalGeneration",
        "paligemma": "PaliGemmaForConditionalGeneration",
        "qwen2_vl": "Qwen2VLForConditionalGeneration",
        "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
        "qwen3_vl": "Qwen3VLForConditionalGeneration",
        "qwen3_5": "Qwen3_5ForConditionalGeneration",
        "gemma3": "Gemma3ForConditionalGeneration",
        "idefics3": "Idefics3ForConditionalGeneration",
        "smolvlm": "SmolVLMForConditionalGeneration",
        "mllama": "MllamaForConditionalGeneration",
        "detr": "DetrForObjectDetection",
        "swinv2": "Swinv2ForImageClassification",
        "swin": "SwinForImageClassification",
        "convnext": "ConvNextForImageClassification",
        "convnextv2": "ConvNextV2ForImageClassification",
        "dinov2": "Dinov2ForImageClassification",
        "dinov2_with_registers": "Dinov2WithRegistersForImageClassification",
        "beit": "BeitForImageClassification",
        "segformer": "SegformerForImageClassification",
        "internvl": "InternVLForConditionalGeneration",
    }[f]
    if a:
        cls = a[0]
    m = getattr(transformers, cls)._from_config(cfg, **how)
    m.tie_weights()
    return m


def batch(c, B=B, S=S):
    torch.manual_seed(0)
    f = c["model_type"]
    ids = torch.randint(3, 190, (B, S))
    side = SIDES.get(f) or c.get("image_size") or c["vision_config"]["image_size"]
    side = side[0] if isinstance(side, list) else side
    px = torch.randn(B, 3, side, side)
    if f == "detr":
        return {"pixel_values": px, "pixel_mask": torch.ones(B, side, side, dtype=torch.long)}
    if c.get("architectures") or f.endswith("vision_model") or "vision_config" not in c:
        return {"pixel_values": px}
    if f in ("clip", "siglip"):
        return {"input_ids": ids, "pixel_values": px}
    if f in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"):
        g = side // 4
        n = g * g // 4
        ids[:, 1 : 1 + n] = 200
        ids[:, 0] = 201
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.randn(B * g * g, 3 * 2 * 16),
            "image_grid_thw": torch.tensor([[1, g, g]] * B),
            **({"mm_token_type_ids": (ids == 200).int()} if f == "qwen3_5" else {}),
        }
    if f == "mllama":
        tiles = c["vision_config"]["max_num_tiles"]
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.randn(B, 1, tiles, 3, side, side),
            "aspect_ratio_ids": torch.ones(B, 1, dtype=torch.long),
            "aspect_ratio_mask": torch.ones(B, 1, tiles, dtype=torch.long),
            "cross_attention_mask": torch.ones(B, S, 1, tiles, dtype=torch.long),
        }
    n = (
        16
        if c["vision_config"].get("model_type", "sig").startswith("sig") or c.get("vision_feature_select_strategy") != "full"
        else 17
    )
    if f in ("idefics3", "smolvlm"):
        g = c["vision_config"]["image_size"] // c["vision_config"]["patch_size"] // c["scale_factor"]
        ids[:, : g * g] = 200
        mask = torch.ones(B, 1, side, side, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": px[:, None], "pixel_attention_mask": mask}
    if f == "gemma3":
        n = c["mm_tokens_per_image"]
    ids[:, :n] = 200
    d = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": px}
    if f in ("paligemma", "gemma3"):
        d["token_type_ids"] = torch.ones_like(ids)
    return d


def observed(c):
    m = build(c, attn_implementation="eager") if c["model_type"] not in NO_KERNEL else build(c)
    m = m.eval()
    outs = {}
    fl = [0]

    def watch(n):
        def hook(mod, i, o):
            if type(mod).__name__ == "Swinv2SelfAttention":  # products that are no attention of the graph
                windows, tokens, width = i[0].shape
                fl[0] += 4 * windows * tokens * tokens * width
            if not torch.is_tensor(o):
                return
            outs.setdefault(named(c, n), list(o.shape))
            if type(mod).__name__ == "Gemma3MultiModalProjector":
                fl[0] += 2 * o.numel() * mod.mm_input_projection_weight.shape[0]
            if type(mod).__name__ == "Linear":
                fl[0] += 2 * i[0].numel() * o.shape[-1]
            if type(mod).__name__ in ("Conv2d", "Conv3d"):
                fl[0] += 2 * o.numel() * mod.weight[0].numel()

        return hook

    for n, mod in m.named_modules(remove_duplicate=False):
        if any(True for _ in mod.parameters(recurse=False)) or type(mod).__name__ == "Swinv2SelfAttention":
            mod.register_forward_hook(watch(n))
    b = batch(c)
    with torch.no_grad():
        m(**b)
    w = {
        named(c, f"{mn}.{n}" if mn else n): list(p.shape)
        for mn, mod in m.named_modules(remove_duplicate=False)
        for n, p in mod.named_parameters(recurse=False)
    }
    side = SIDES.get(c["model_type"])
    return {
        "config": c,
        "parameters": sum(p.numel() for p in m.parameters()),
        "linear_flops": fl[0],
        "weights": w,
        "outputs": outs,
        **({"sequence": S} if "input_ids" in b else {}),
        **({"side": side} if side else {}),
    }


import weakref


class Box:
    """Holds a saved tensor's memory as long as its node lives; not the node, which would hold the box."""

    def __init__(self, t):
        self.t = t.detach()


def saved(c, impl):
    m = build(c, attn_implementation=impl) if c["model_type"] not in NO_KERNEL else build(c)
    m = m.train()
    b = batch(c)
    out = {p.untyped_storage().data_ptr() for p in m.parameters()} | {
        t.untyped_storage().data_ptr() for t in b.values()
    }
    bufs = {x.untyped_storage().data_ptr() for x in m.buffers()}
    boxes = []

    def pack(t):
        s = t.untyped_storage()
        # Buffers are counted as such; BEiT's indices of distances stay in host memory.
        apart = c["model_type"] in VISION and (s.data_ptr() in bufs or t.dtype == torch.int64)
        if s.data_ptr() not in out and s.nbytes() > 8 and not apart:
            part = s.data_ptr() in bufs
            box = Box(t)
            boxes.append((weakref.ref(box), s.data_ptr(), t.numel() * t.element_size() if part else s.nbytes()))
            return box
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t.t if isinstance(t, Box) else t):
        f = c["model_type"]
        if f in ("clip", "siglip") and not c.get("architectures"):
            loss = m(**b, return_loss=True).loss
        elif f == "detr":  # the costs of matching, over a few numbers, are left out
            o = m(**b)
            labels = torch.zeros(o.logits.shape[:2], dtype=torch.long).flatten()
            out.add(labels.untyped_storage().data_ptr())
            loss = torch.nn.functional.cross_entropy(o.logits.flatten(0, 1), labels) + o.pred_boxes.sum()
            del o
        elif f.endswith("vision_model"):
            loss = m(**b).pooler_output.sum()
        elif c.get("architectures") or "vision_config" not in c:
            pixels = c.get("architectures", [""])[0].endswith("Segmentation")
            labels = torch.zeros(b["pixel_values"][:, 0].shape if pixels else B, dtype=torch.long)
            out.add(labels.untyped_storage().data_ptr())
            loss = m(**b, labels=labels).loss
        else:
            from transformers.loss.loss_utils import ForCausalLMLoss

            labels = torch.randint(3, 190, (B, S))
            out.add(labels.untyped_storage().data_ptr())
            lg = m(**b, use_cache=False).logits
            loss = ForCausalLMLoss(lg, labels, lg.shape[-1])
            del lg
    import gc

    gc.collect()
    alive = {p: n for r, p, n in boxes if r() is not None}
    return sum(alive.values()), alive, loss


VERSIONS = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
ROOM = pathlib.Path(__file__).resolve().parent


def append(path, config, row):
    """Behind the file's last model."""
    text = path.read_text()
    known = [model["config"] for model in json.loads(text)["models"]]
    if config in known:
        return
    end = text.rstrip().removesuffix("]}").rstrip()
    path.write_text(f"{end},\n{json.dumps(row())}\n]}}\n")


def add_new():
    for c in MODELS:
        kind = {"source": VERSIONS}
        text = "text_config" in c or "vocab_size" in c
        more = {**({"sequence": S} if text else {}), **({"side": SIDES[c["model_type"]]} if c["model_type"] in SIDES else {})}
        append(
            ROOM / "saved_picture_text_models.json",
            c,
            lambda: {"config": c, "saved_bytes": saved(c, "eager")[0], **more, **kind},
        )
        append(ROOM.parent / "model" / "state_dicts.json", c, lambda: {**observed(c), **kind})


if __name__ == "__main__":
    for c in MODELS if sys.argv[1:] != ["--new"] else add_new() or []:
        if sys.argv[1:] == ["state"]:
            print(json.dumps(observed(c)))
        else:
            print(c["model_type"], saved(c, "eager")[0])
