#!/usr/bin/env python3
"""Records headers of safetensors files as transformers writes them: safetensors_headers.json.

    /path/to/venv/bin/python tests/model/oracle_safetensors.py

Tiny models, saved with save_pretrained (safetensors.torch.save_file); each row holds the model's
config.json and the header of each of its files, without the weights.

    /path/to/venv5/bin/python tests/model/oracle_safetensors.py --newer

With transformers 5: adds the models whose files it writes with other keys or other names.
"""
import json, os, struct, sys, tempfile
import transformers as t

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
             vocab_size=96, max_position_embeddings=32)
GPT = dict(n_embd=32, n_layer=2, n_head=4, vocab_size=96, n_positions=32)


def models():
    yield "llama", t.LlamaForCausalLM(t.LlamaConfig(num_key_value_heads=2, **SMALL)), None
    yield "llama_tied", t.LlamaForCausalLM(t.LlamaConfig(tie_word_embeddings=True, **SMALL)), None
    yield "qwen2_shards", t.Qwen2ForCausalLM(t.Qwen2Config(num_key_value_heads=2, **SMALL)), "20KB"
    yield "mistral", t.MistralForCausalLM(t.MistralConfig(num_key_value_heads=2, **SMALL)), None
    yield "gemma2", t.Gemma2ForCausalLM(t.Gemma2Config(num_key_value_heads=2, head_dim=8, **SMALL)), None
    yield "phi3", t.Phi3ForCausalLM(t.Phi3Config(pad_token_id=0, **SMALL)), None
    yield "gpt2", t.GPT2LMHeadModel(t.GPT2Config(**GPT)), None
    yield "gpt2_base", t.GPT2Model(t.GPT2Config(**GPT)), None
    yield "gpt_neox", t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SMALL)), None
    yield "mixtral", t.MixtralForCausalLM(
        t.MixtralConfig(num_key_value_heads=2, num_local_experts=4, **SMALL)), None
    yield "bert", t.BertForMaskedLM(t.BertConfig(**SMALL)), None
    yield "roberta", t.RobertaForMaskedLM(t.RobertaConfig(**SMALL)), None
    yield "vit", t.ViTForImageClassification(t.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=32, patch_size=8, num_labels=5)), None


    yield from further_models()


def further_models():
    few = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=96)
    yield "qwen2_moe", t.Qwen2MoeForCausalLM(t.Qwen2MoeConfig(
        num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        shared_expert_intermediate_size=48, **SMALL)), None
    yield "olmo2", t.Olmo2ForCausalLM(t.Olmo2Config(num_key_value_heads=2, **SMALL)), None
    yield "olmoe", t.OlmoeForCausalLM(t.OlmoeConfig(num_experts=4, num_experts_per_tok=2, **SMALL)), None
    yield "stablelm", t.StableLmForCausalLM(t.StableLmConfig(num_key_value_heads=4, **SMALL)), None
    yield "starcoder2", t.Starcoder2ForCausalLM(
        t.Starcoder2Config(num_key_value_heads=2, **SMALL)), None
    yield "phi", t.PhiForCausalLM(t.PhiConfig(**SMALL)), None
    yield "gemma", t.GemmaForCausalLM(t.GemmaConfig(head_dim=8, num_key_value_heads=2, **SMALL)), None
    yield "cohere", t.CohereForCausalLM(t.CohereConfig(**SMALL)), None
    yield "falcon", t.FalconForCausalLM(t.FalconConfig(**few)), None
    yield "bloom", t.BloomForCausalLM(t.BloomConfig(
        hidden_size=32, n_layer=2, n_head=4, vocab_size=96)), None
    yield "opt", t.OPTForCausalLM(t.OPTConfig(ffn_dim=64, word_embed_proj_dim=32,
                                              max_position_embeddings=32, **few)), None
    yield "gptj", t.GPTJForCausalLM(t.GPTJConfig(rotary_dim=4, **GPT)), None
    yield "mpt", t.MptForCausalLM(t.MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=96,
                                              max_seq_len=32)), None
    yield "mamba", t.MambaForCausalLM(t.MambaConfig(
        hidden_size=32, num_hidden_layers=2, vocab_size=96, state_size=8)), None
    yield "distilbert", t.DistilBertForMaskedLM(t.DistilBertConfig(
        dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=96,
        max_position_embeddings=32)), None
    yield "electra", t.ElectraForPreTraining(t.ElectraConfig(embedding_size=16, **SMALL)), None
    yield "modernbert", t.ModernBertForMaskedLM(t.ModernBertConfig(pad_token_id=0, **SMALL)), None
    yield "deberta_v2", t.DebertaV2ForMaskedLM(t.DebertaV2Config(
        relative_attention=True, pos_att_type=["p2c", "c2p"], **SMALL)), None
    yield "bert_shards", t.BertForMaskedLM(t.BertConfig(**SMALL)), "20KB"
    yield "t5", t.T5ForConditionalGeneration(t.T5Config(
        d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=64, vocab_size=96)), None
    yield "bart", t.BartForConditionalGeneration(t.BartConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=96,
        max_position_embeddings=32)), None
    yield "whisper", t.WhisperForConditionalGeneration(t.WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=96,
        num_mel_bins=16, max_source_positions=50, max_target_positions=32, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)), None
    yield "wav2vec2", t.Wav2Vec2ForCTC(t.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        vocab_size=30)), None
    part = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    yield "clip", t.CLIPModel(t.CLIPConfig(
        text_config=dict(vocab_size=96, max_position_embeddings=16, **part),
        vision_config=dict(image_size=32, patch_size=8, **part), projection_dim=32)), None
    yield "siglip", t.SiglipModel(t.SiglipConfig(
        text_config=dict(vocab_size=96, max_position_embeddings=16, **part),
        vision_config=dict(image_size=32, patch_size=8, **part))), None
    yield "deit", t.DeiTForImageClassification(t.DeiTConfig(
        image_size=32, patch_size=8, num_labels=5, **part)), None
    yield "resnet", t.ResNetForImageClassification(t.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=5)), None
    import diffusers as d
    yield "unet", d.UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=32,
        attention_head_dim=8), None
    yield "dit", d.DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2,
        sample_size=16, num_embeds_ada_norm=10), None
    yield "autoencoder", d.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64), layers_per_block=1, latent_channels=4), None


def newer_models():
    text = dict(SMALL, num_key_value_heads=2, pad_token_id=0)
    tower = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    tiny = dict(tower, image_size=28, patch_size=14)
    experts = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    yield "qwen3_moe_5", t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(**experts, **text)), None
    yield "qwen2_moe_5", t.Qwen2MoeForCausalLM(t.Qwen2MoeConfig(
        shared_expert_intermediate_size=48, **experts, **text)), None
    yield "gpt_oss_5", t.GptOssForCausalLM(t.GptOssConfig(
        head_dim=8, num_local_experts=4, attention_bias=False, **text)), None
    yield "llama4_5", t.Llama4ForCausalLM(t.Llama4TextConfig(
        head_dim=8, num_local_experts=4, intermediate_size_mlp=64, attention_bias=True,
        **text)), None
    yield "llava_5", t.LlavaForConditionalGeneration(t.LlavaConfig(
        vision_config=dict(tiny, model_type="clip_vision_model"),
        text_config=dict(text, model_type="llama"))), None
    yield "paligemma_5", t.PaliGemmaForConditionalGeneration(t.PaliGemmaConfig(
        projection_dim=32, vision_config=dict(tiny, model_type="siglip_vision_model"),
        text_config=dict(text, model_type="gemma", head_dim=8))), None
    yield "internvl_5", t.InternVLForConditionalGeneration(t.InternVLConfig(
        tie_word_embeddings=False, image_seq_length=1,
        vision_config=dict(tower, image_size=[28, 28]),
        text_config=dict(text, model_type="qwen2"))), None
    yield "smolvlm_5", t.SmolVLMForConditionalGeneration(t.SmolVLMConfig(
        tie_word_embeddings=True, vision_config=dict(tiny),
        text_config=dict(text, model_type="llama"))), None
    yield "marian_5", t.MarianMTModel(t.MarianConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=96,
        decoder_vocab_size=96, max_position_embeddings=32, pad_token_id=0)), None
    hybrid = dict(text, num_attention_heads=4, head_dim=8, mamba_num_heads=8, mamba_head_dim=8,
                  n_groups=2, ssm_state_size=8)
    hybrid.pop("num_hidden_layers")
    yield "nemotron_h_5", t.NemotronHForCausalLM(t.NemotronHConfig(
        layers_block_type=["linear_attention", "mlp", "full_attention", "mlp"], **hybrid)), None
    import diffusers as d
    yield "sd3_5", d.SD3Transformer2DModel(
        sample_size=16, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=16,
        pos_embed_max_size=16), None


def header_of(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


def main():
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "safetensors_headers.json")
    rows = []
    newer = "--newer" in sys.argv
    if newer:
        with open(out) as file:
            older = json.load(file)
        rows = [row for row in older["models"] if not row["name"].endswith("_5")]
    for name, model, shard in newer_models() if newer else models():
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
            files = {f: header_of(os.path.join(folder, f)) for f in sorted(os.listdir(folder))
                     if f.endswith(".safetensors")}
            with open(os.path.join(folder, "config.json")) as file:
                config = json.load(file)
            index = None
            if shard:
                with open(os.path.join(folder, "model.safetensors.index.json")) as file:
                    index = json.load(file)
        rows.append({"name": name, "config": config, "files": files, "index": index,
                     "parameters": sum(p.numel() for p in model.parameters())})
        print(name, rows[-1]["parameters"], len(files))
    record = {"made_by": f"transformers {t.__version__}", "models": rows}
    if newer:
        record = {"made_by": older["made_by"], "newer_by": record["made_by"], "models": rows}
    with open(out, "w") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
