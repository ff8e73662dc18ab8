// Decoders of 2024 and 2025 that keep LLaMA's layer but for a norm, a bias, a feed-forward network
// or the layers that turn (transformers 4.57: modeling_arcee.py, modeling_ernie4_5.py,
// modeling_exaone4.py, modeling_glm.py, modeling_glm4.py, modeling_hunyuan_v1_dense.py,
// modeling_ministral.py, modeling_seed_oss.py, modeling_smollm3.py; 5: internlm3).
#include <string>
#include <utility>
#include <vector>

#include "model/decoder_families.h"
#include "model/llama_parts.h"

namespace steelyard::model {

namespace {

std::vector<int> alike(const LlamaLike& llama) {
  return std::vector<int>(static_cast<std::size_t>(llama.sizes.layers), 0);
}

void read_attention_bias(ConfigReader& config, LlamaLike& llama, bool fallback) {
  llama.attention.qkv_bias = llama.attention.out_bias = config.flag({"attention_bias"}, fallback);
}

constexpr SizeDefaults kGlmSizes = {.vocabulary = 151552,
                                    .hidden = 4096,
                                    .layers = 40,
                                    .heads = 32,
                                    .kv_heads = 2,
                                    .head_dim = 128,
                                    .max_sequence = 131072,
                                    .tied = false};

LlamaLike read_glm(ConfigReader& config) {
  LlamaLike glm = read_llama(config, kGlmSizes, 13696);
  glm.attention.qkv_bias = config.flag({"attention_bias"}, true);
  glm.attention.rotary_dims = rotary_dims_of(config, glm.sizes.head_dim, 0.5);
  glm.attention.rotary_joins_rest = glm.attention.spreads_tables = true;
  glm.mlp.form = MlpForm::fused;
  glm.mlp.act = "activation_fn";
  return glm;
}

}  // namespace

Graph build_arcee(ConfigReader& config, const SampleShape& sample) {
  LlamaLike arcee = read_llama(config,
                               {.vocabulary = 32000,
                                .hidden = 2560,
                                .layers = 32,
                                .heads = 32,
                                .kv_heads = {},
                                .head_dim = {},
                                .max_sequence = 4096,
                                .tied = false},
                               18432);
  read_attention_bias(config, arcee, false);
  arcee.mlp.bias = config.flag({"mlp_bias"}, false);
  arcee.mlp.activation = config.activation({"hidden_act"}, "relu2");
  arcee.mlp.form = MlpForm::plain;
  return finish_llama(config, sample, arcee, alike(arcee));
}

// Plain feed-forward networks behind norms of other names, an activation with weights of its own.
Graph build_apertus(ConfigReader& config, const SampleShape& sample) {
  LlamaLike apertus = read_llama_sizes(config,
                                       {.vocabulary = 131072,
                                        .hidden = 4096,
                                        .layers = 32,
                                        .heads = 32,
                                        .kv_heads = {},
                                        .head_dim = {},
                                        .max_sequence = 65536,
                                        .tied = false},
                                       14336);
  read_attention_bias(config, apertus, false);
  apertus.attention.qk_norm = QkNorm::rms_per_head;
  apertus.norms.before_attention = "attention_layernorm";
  apertus.norms.before_mlp = "feedforward_layernorm";
  apertus.mlp.form = MlpForm::plain;
  apertus.mlp.activation = config.is_text("hidden_act", "xielu") || !config.has("hidden_act")
                               ? ActivationKind::xielu
                               : config.activation({"hidden_act"}, "silu");
  return finish_llama(config, sample, apertus, alike(apertus));
}

LlamaLike read_ernie(ConfigReader& config, const SizeDefaults& defaults,
                     std::int64_t default_intermediate) {
  LlamaLike ernie = read_llama(config, defaults, default_intermediate);
  ernie.attention.qkv_bias = ernie.attention.out_bias = ernie.mlp.bias =
      config.flag({"use_bias"}, false);
  ernie.attention.shape.dropout = 0.0;
  ernie.attention.turns_pairs = ernie.attention.spreads_tables = ernie.wide_tables = true;
  return ernie;
}

Graph build_ernie4_5(ConfigReader& config, const SampleShape& sample) {
  const LlamaLike ernie = read_ernie(config,
                                     {.vocabulary = 103424,
                                      .hidden = 1024,
                                      .layers = 18,
                                      .heads = 16,
                                      .kv_heads = 2,
                                      .head_dim = 128,
                                      .max_sequence = 131072,
                                      .tied = true},
                                     3072);
  return finish_llama(config, sample, ernie, alike(ernie));
}

// Of layers with and without a window, those without do not turn.
Graph build_exaone4(ConfigReader& config, const SampleShape& sample) {
  LlamaLike exaone = read_llama(config,
                                {.vocabulary = 102400,
                                 .hidden = 4096,
                                 .layers = 32,
                                 .heads = 32,
                                 .kv_heads = 32,
                                 .head_dim = {},
                                 .max_sequence = 2048,
                                 .tied = false},
                                16384);
  exaone.attention.qk_norm = QkNorm::rms_per_head;
  exaone.norms = {.before_attention = "",
                  .behind_attention = "post_attention_layernorm",
                  .before_mlp = "",
                  .behind_mlp = "post_feedforward_layernorm"};
  if (config.is_null("sliding_window")) {
    return finish_llama(config, sample, exaone, alike(exaone));
  }
  exaone.window = config.whole({"sliding_window"}, 4096, kWindowLimits);
  // The published files write the pattern as "LLLG" and list the layers' types.
  const bool listed = config.has("layer_types");
  const std::int64_t pattern =
      listed ? 4 : config.whole({"sliding_window_pattern"}, 4, kLayerLimits);
  std::vector<int> kinds = window_kinds(
      config, exaone.sizes.layers, [&](std::int64_t layer) { return (layer + 1) % pattern != 0; });
  for (int& kind : kinds) kind = kind == kWindowed ? kWindowed : kUnturned;
  return finish_llama(config, sample, exaone, kinds);
}

Graph build_glm(ConfigReader& config, const SampleShape& sample) {
  const LlamaLike glm = read_glm(config);
  return finish_llama(config, sample, glm, alike(glm));
}

Graph build_glm4(ConfigReader& config, const SampleShape& sample) {
  LlamaLike glm = read_glm(config);
  glm.norms.behind_attention = "post_self_attn_layernorm";
  glm.norms.behind_mlp = "post_mlp_layernorm";
  return finish_llama(config, sample, glm, alike(glm));
}

LlamaLike read_hunyuan(ConfigReader& config) {
  LlamaLike hunyuan = read_llama(config,
                                 {.vocabulary = 290943,
                                  .hidden = 4096,
                                  .layers = 32,
                                  .heads = 32,
                                  .kv_heads = {},
                                  .head_dim = {},
                                  .max_sequence = 2048,
                                  .tied = false},
                                 11008);
  read_attention_bias(config, hunyuan, false);
  hunyuan.attention.qk_norm = QkNorm::rms_per_head_turned;
  hunyuan.attention.q_norm = "query_layernorm";
  hunyuan.attention.k_norm = "key_layernorm";
  return hunyuan;
}

Graph build_hunyuan_dense(ConfigReader& config, const SampleShape& sample) {
  const LlamaLike hunyuan = read_hunyuan(config);
  return finish_llama(config, sample, hunyuan, alike(hunyuan));
}

Graph build_internlm3(ConfigReader& config, const SampleShape& sample) {
  LlamaLike internlm = read_llama(config,
                                  {.vocabulary = 128512,
                                   .hidden = 4096,
                                   .layers = 48,
                                   .heads = 32,
                                   .kv_heads = 2,
                                   .head_dim = 128,
                                   .max_sequence = 32768,
                                   .tied = false},
                                  10240);
  internlm.attention.qkv_bias = config.flag({"qkv_bias", "attention_bias"}, false);
  internlm.attention.out_bias = internlm.mlp.bias = config.flag({"bias", "mlp_bias"}, false);
  return finish_llama(config, sample, internlm, alike(internlm));
}

Graph build_ministral(ConfigReader& config, const SampleShape& sample) {
  LlamaPlan plan = plan_mistral(config);
  plan.llama.attention.shape.repeats_for_flash = false;
  const bool windowed = !config.is_null("sliding_window");
  plan.kinds =
      window_kinds(config, plan.llama.sizes.layers, [&](std::int64_t) { return windowed; });
  return finish_llama(config, sample, plan.llama, plan.kinds);
}

// Qwen 2 and layers that predict further tokens, which its class holds and never runs.
Graph build_mimo(ConfigReader& config, const SampleShape& sample) {
  const LlamaPlan plan = plan_qwen2(config);
  Graph graph = finish_llama(config, sample, plan.llama, plan.kinds);
  const Sizes& sizes = plan.llama.sizes;
  const std::int64_t further =
      config.whole({"num_nextn_predict_layers"}, 0, {0, kLayerLimits.most});
  for (std::int64_t i = 0; i < further; ++i) {
    const std::string root = "model.mtp_layers." + std::to_string(i) + ".";
    std::vector<Weight> weights = llama_layer(graph, plan.llama, 0).weights;
    const auto add = [&](const std::string& name, Shape of_weight, WeightRole role) {
      Weight& weight = weights.emplace_back();
      weight.name = name + ".weight";
      weight.shape = std::move(of_weight);
      weight.role = role;
    };
    for (const char* name : {"token_layernorm", "hidden_layernorm", "final_layernorm"}) {
      add(name, {sizes.hidden}, WeightRole::norm);
    }
    add("input_proj", {sizes.hidden, 2 * sizes.hidden}, WeightRole::matrix);
    for (Weight& weight : weights) {
      weight.name = root + weight.name;
      weight.unread = true;
      graph.segments.back().blocks.back().weights.push_back(weight);
    }
  }
  return graph;
}

Graph build_nemotron(ConfigReader& config, const SampleShape& sample) {
  LlamaLike nemotron = read_llama_sizes(config,
                                        {.vocabulary = 256000,
                                         .hidden = 6144,
                                         .layers = 32,
                                         .heads = 48,
                                         .kv_heads = {},
                                         .head_dim = {},
                                         .max_sequence = 4096,
                                         .tied = false},
                                        24576);
  read_attention_bias(config, nemotron, false);
  nemotron.attention.rotary_dims = rotary_dims_of(config, nemotron.sizes.head_dim, 0.5);
  nemotron.attention.rotary_joins_rest = true;
  nemotron.norm = LayerNorm::layer;
  nemotron.mlp.activation = config.activation({"hidden_act"}, "relu2");
  nemotron.mlp.bias = config.flag({"mlp_bias"}, false);
  nemotron.mlp.form = MlpForm::plain;
  return finish_llama(config, sample, nemotron, alike(nemotron));
}

// The first OLMo: LayerNorms without weights, in fp32.
Graph build_olmo(ConfigReader& config, const SampleShape& sample) {
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
  read_attention_bias(config, olmo, false);
  if (config.has("clip_qkv")) {
    config.reject("clip_qkv", "a number", "null: clamped projections are not built");
  }
  olmo.norm = LayerNorm::plain_wide;
  olmo.wide = true;
  return finish_llama(config, sample, olmo, alike(olmo));
}

Graph build_seed_oss(ConfigReader& config, const SampleShape& sample) {
  LlamaLike seed = read_llama(config,
                              {.vocabulary = 155136,
                               .hidden = 4096,
                               .layers = 64,
                               .heads = 80,
                               .kv_heads = 8,
                               .head_dim = 128,
                               .max_sequence = 524288,
                               .tied = false},
                              27648);
  seed.attention.qkv_bias = config.flag({"attention_bias"}, true);
  seed.attention.out_bias = config.flag({"attention_out_bias"}, false);
  seed.attention.shape.dropout = config.probability({"attention_dropout"}, 0.1);
  seed.residual_dropout = config.probability({"residual_dropout"}, 0.1);
  seed.mlp.bias = config.flag({"mlp_bias"}, false);
  return finish_llama(config, sample, seed, alike(seed));
}

// Every fourth layer does not turn; a window, where there is one, is of those.
Graph build_smollm3(ConfigReader& config, const SampleShape& sample) {
  LlamaLike smol = read_llama(config,
                              {.vocabulary = 128256,
                               .hidden = 2048,
                               .layers = 36,
                               .heads = 16,
                               .kv_heads = 4,
                               .head_dim = {},
                               .max_sequence = 32768,
                               .tied = true},
                              11008);
  read_attention_bias(config, smol, false);
  smol.mlp.bias = config.flag({"mlp_bias"}, false);
  const std::int64_t interval = config.whole({"no_rope_layer_interval"}, 4, kLayerLimits);
  std::vector<std::int64_t> turns;
  for (std::int64_t i = 0; i < smol.sizes.layers; ++i) turns.push_back((i + 1) % interval != 0);
  turns = config.whole_list({"no_rope_layers"}, turns, {.least = 0, .most = 1});
  if (std::ssize(turns) != smol.sizes.layers) {
    config.reject("no_rope_layers", std::to_string(turns.size()) + " entries",
                  "one for each of the " + std::to_string(smol.sizes.layers) + " layers");
    return {};
  }
  const bool windows = config.flag({"use_sliding_window"}, false) && config.has("sliding_window");
  smol.window = config.whole({"sliding_window"}, 4096, kWindowLimits);
  std::vector<int> kinds = window_kinds(config, smol.sizes.layers, [&](std::int64_t layer) {
    return turns[static_cast<std::size_t>(layer)] == 0;
  });
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (!windows) kinds[i] = 0;
    if (turns[i] == 0) kinds[i] |= kUnturned;
  }
  return finish_llama(config, sample, smol, kinds);
}

}  // namespace steelyard::model
