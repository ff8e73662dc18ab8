// Families whose code lies beside their weights on the Hub (modeling_internlm2.py,
// modeling_chatglm.py of GLM-4 and ChatGLM3): LLaMA's layer with one projection for queries, keys
// and values and other names.
#include <string>
#include <vector>

#include "model/decoder_families.h"
#include "model/llama_parts.h"

namespace steelyard::model {

namespace {

std::vector<int> alike(const LlamaLike& llama) {
  return std::vector<int>(static_cast<std::size_t>(llama.sizes.layers), 0);
}

}  // namespace

Graph build_internlm2(ConfigReader& config, const SampleShape& sample) {
  LlamaLike internlm = read_llama(config,
                                  {.vocabulary = 103168,
                                   .hidden = 4096,
                                   .layers = 32,
                                   .heads = 32,
                                   .kv_heads = {},
                                   .head_dim = {},
                                   .max_sequence = 2048,
                                   .tied = false},
                                  11008);
  AttentionPart& attention = internlm.attention;
  attention.module = "attention";
  attention.fused = "wqkv";
  attention.spreads_tables = true;  // each layer gathers its own
  attention.out = "wo";
  attention.qkv_bias = attention.out_bias = config.flag({"bias"}, true);
  attention.shape.dropout = 0.0;
  internlm.norms = {.before_attention = "attention_norm",
                    .behind_attention = "",
                    .before_mlp = "ffn_norm",
                    .behind_mlp = ""};
  internlm.mlp.module = "feed_forward";
  internlm.mlp.gate = "w1";
  internlm.mlp.up = "w3";
  internlm.mlp.down = "w2";
  internlm.embedding = "model.tok_embeddings";
  internlm.head = "output";
  return finish_llama(config, sample, internlm, alike(internlm));
}

}  // namespace steelyard::model
