#!/usr/bin/env python3
"""Records headers of safetensors files as transformers writes them: safetensors_headers.json.

    /path/to/venv/bin/python tests/model/oracle_safetensors.py

Tiny models, saved with save_pretrained (safetensors.torch.save_file); each row holds the model's
config.json and the header of each of its files, without the weights.
"""
import json, os, struct, tempfile
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


def header_of(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


def main():
    rows = []
    for name, model, shard in models():
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
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "safetensors_headers.json")
    with open(out, "w") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
