#!/usr/bin/env python3
"""Records what diffusers' and transformers' own classes hold, for diffusion_families_test.cpp.

Optional: the results are recorded as data, nothing in the build or the tests runs this. It needs
torch, transformers and diffusers (0.32 or newer; the rows of Wan 0.33 or newer). Models are built
on the meta device. Writes diffusion_state_dicts.json: the tiny models named here.
"""
import json
import pathlib

import diffusers
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")
ENCODERS = {"clip_text_model": transformers.CLIPTextConfig, "t5": transformers.T5Config}
TINY = [
    {"_class_name": "CogVideoXTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 16,
     "num_layers": 2, "text_embed_dim": 24, "time_embed_dim": 12, "sample_width": 8,
     "sample_height": 6, "sample_frames": 9, "max_text_seq_length": 5},
    {"_class_name": "CogVideoXTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 16,
     "num_layers": 1, "text_embed_dim": 24, "time_embed_dim": 12, "sample_width": 8,
     "sample_height": 6, "sample_frames": 13, "max_text_seq_length": 5, "patch_size_t": 2,
     "patch_bias": False, "ofs_embed_dim": 8, "use_rotary_positional_embeddings": True},
    {"_class_name": "LTXVideoTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 12,
     "cross_attention_dim": 24, "num_layers": 2, "in_channels": 8, "out_channels": 8,
     "caption_channels": 20},
    {"_class_name": "FluxTransformer2DModel", "num_layers": 2, "num_single_layers": 3,
     "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 20,
     "pooled_projection_dim": 12, "in_channels": 16, "guidance_embeds": True,
     "axes_dims_rope": [4, 4, 8]},
    {"_class_name": "SD3Transformer2DModel", "sample_size": 8, "num_layers": 3,
     "attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 20,
     "caption_projection_dim": 32, "pooled_projection_dim": 12, "pos_embed_max_size": 8,
     "dual_attention_layers": [0, 1], "qk_norm": "rms_norm"},
    {"_class_name": "SD3Transformer2DModel", "sample_size": 8, "num_layers": 2,
     "attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 20,
     "caption_projection_dim": 32, "pooled_projection_dim": 12, "pos_embed_max_size": 8},
    {"_class_name": "PixArtTransformer2DModel", "num_attention_heads": 3, "attention_head_dim": 8,
     "num_layers": 2, "cross_attention_dim": 24, "sample_size": 128, "caption_channels": 20},
    {"_class_name": "PixArtTransformer2DModel", "num_attention_heads": 3, "attention_head_dim": 8,
     "num_layers": 1, "cross_attention_dim": 24, "sample_size": 8, "caption_channels": 20},
    {"_class_name": "DiTTransformer2DModel", "num_attention_heads": 3, "attention_head_dim": 8,
     "num_layers": 2, "in_channels": 4, "out_channels": 8, "sample_size": 8,
     "num_embeds_ada_norm": 10, "norm_type": "ada_norm_zero"},
    {"_class_name": "HunyuanVideoTransformer3DModel", "num_attention_heads": 2,
     "attention_head_dim": 16, "num_layers": 2, "num_single_layers": 2, "num_refiner_layers": 2,
     "text_embed_dim": 24, "pooled_projection_dim": 12, "rope_axes_dim": [4, 4, 8]},
    {"_class_name": "WanTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 12,
     "num_layers": 2, "ffn_dim": 40, "text_dim": 20, "freq_dim": 16},
    {"_class_name": "AutoencoderKL", "block_out_channels": [32, 64], "layers_per_block": 2,
     "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2},
    {"_class_name": "AutoencoderKLCogVideoX", "block_out_channels": [32, 64, 64, 64],
     "layers_per_block": 1, "latent_channels": 4},
    {"_class_name": "AutoencoderKLLTXVideo", "block_out_channels": [8, 16, 32, 32],
     "layers_per_block": [2, 1, 1, 1, 2], "latent_channels": 8},
    {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_size": 16,
     "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99},
    {"architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model",
     "hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
     "vocab_size": 99, "projection_dim": 12},
    {"_class_name": "AutoencoderKLWan", "base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 1,
     "temperal_downsample": [False, True, True]},
    {"_class_name": "AutoencoderKLWan", "base_dim": 8, "decoder_base_dim": 16, "z_dim": 6, "dim_mult": [1, 2, 4, 4],
     "num_res_blocks": 2, "temperal_downsample": [True, False, True], "is_residual": True, "in_channels": 12,
     "out_channels": 12, "patch_size": 2},
    {"_class_name": "AutoencoderKLHunyuanVideo", "block_out_channels": [32, 64, 64, 96], "layers_per_block": 1,
     "latent_channels": 4},
    {"architectures": ["T5EncoderModel"], "model_type": "t5", "d_model": 16, "d_ff": 40,
     "num_layers": 2, "num_heads": 2, "d_kv": 8, "vocab_size": 99,
     "feed_forward_proj": "gated-gelu"},
]


def build(config):
    values = dict(config)
    if "_class_name" in values:
        return getattr(diffusers, values.pop("_class_name"))(**values)
    name = values.pop("architectures")[0]
    return getattr(transformers, name)(ENCODERS[values.pop("model_type")](**values))


def main():
    rows = []
    for config in TINY:
        if "_class_name" in config and not hasattr(diffusers, config["_class_name"]):
            continue
        if config.get("_class_name") == "AutoencoderKLLTXVideo":
            # The decoder's widths have keys of their own.
            built = {**config, "decoder_block_out_channels": config["block_out_channels"],
                     "decoder_layers_per_block": config["layers_per_block"]}
        else:
            built = config
        with torch.device("meta"):
            model = build(built)
        weights = {name: list(value.shape) for name, value in model.named_parameters()}
        parameters = sum(value.numel() for value in model.parameters())
        rows.append({"config": config, "parameters": parameters, "weights": weights})
    source = f"diffusers {diffusers.__version__}, transformers {transformers.__version__}"
    lines = ",\n".join(json.dumps(row) for row in rows)
    (HERE / "diffusion_state_dicts.json").write_text(
        f'{{"source": {json.dumps(source)},\n"models": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
