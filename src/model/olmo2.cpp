// OLMo 2 and 3 (transformers: modeling_olmo2.py, modeling_olmo3.py): LLaMA's layer with the norms
// behind each half, and queries and keys normed over all heads at once. OLMo 3 has windows, and a
// rotary table of its own for the layers that have one.
#include "model/llama_parts.h"

namespace steelyard::model {

namespace {

LlamaLike read_olmo(ConfigReader& config) {
  LlamaLike olmo = read_llama(config,
                              {.vocabulary = 50304,
                               .hidden = 4096,
                               .layers = 32,
                               .heads = 32,
                               .kv_heads = {},
                               .head_dim = {},
                               .max_sequence = 2048,
                               .tied = false},
                              11008);
  olmo.attention.qkv_bias = olmo.attention.out_bias = config.flag({"attention_bias"}, false);
  olmo.attention.qk_norm = QkNorm::rms_whole;
  olmo.norms = {.before_attention = "",
                .behind_attention = "post_attention_layernorm",
                .before_mlp = "",
                .behind_mlp = "post_feedforward_layernorm"};
  olmo.wide = true;
  return olmo;
}

}  // namespace

Graph build_olmo2(ConfigReader& config, const SampleShape& sample) {
  const LlamaLike olmo = read_olmo(config);
  return finish_llama(config, sample, olmo,
                      std::vector<int>(static_cast<std::size_t>(olmo.sizes.layers), 0));
}

Graph build_olmo3(ConfigReader& config, const SampleShape& sample) {
  LlamaLike olmo = read_olmo(config);
  olmo.window = config.whole({"sliding_window"}, 4096, kWindowLimits);
  olmo.window_tables = true;
  return finish_llama(config, sample, olmo,
                      window_kinds(config, olmo.sizes.layers,
                                   [](std::int64_t layer) { return (layer + 1) % 4 != 0; }));
}

}  // namespace steelyard::model
