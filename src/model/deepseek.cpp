// Layers whose first ones are dense and the others mixtures with experts of all tokens beside them
// (transformers 4.57: modeling_deepseek_v2.py, modeling_deepseek_v3.py, modeling_glm4_moe.py).
// DeepSeek's attention is latent: queries, keys and values come out of compressed ones, and only a
// part of each head turns. The further predictions that DeepSeek-V3's checkpoints hold
// (num_nextn_predict_layers) are not built by these classes, nor counted among the published 671 B.
#include <algorithm>
#include <string>
#include <vector>

#include "model/decoder_families.h"
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

constexpr Limits kExpertLimits{1, 4096};
constexpr double kLargestScale = 1e6;

struct Model {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  MixturePart mixture;
  std::int64_t shared = 0;  // width of the experts of all tokens
  std::int64_t dense = 0;   // layers before the first mixture
  bool latent = false;
  // Latent attention: compressed queries (0: none) and keys, dimensions that turn.
  std::int64_t query_rank = 0, key_rank = 0, turning = 0;
  bool complex = false;  // turns as complex numbers
  std::int64_t window = 0;
  std::vector<int> windows = {};  // kWindowed of each layer; none: empty
};

constexpr int kWindowed = 1, kDense = 2;

// DeepseekV3Attention.forward.
TensorRef add_latent_attention(BlockBuilder& block, const Model& model, TensorRef x) {
  const AttentionPart& part = model.attention;
  const AttentionShape& shape = part.shape;
  const std::string module = part.module + ".";
  const LinearOptions down{.bias = part.qkv_bias, .replicated = true};
  TensorRef q = x;
  if (model.query_rank > 0) {
    q = block.linear(module + "q_a_proj", x, model.query_rank, down);
    q = block.rms_norm(module + "q_a_layernorm", q);
  }
  q = block.linear(module + (model.query_rank > 0 ? "q_b_proj" : "q_proj"), q,
                   shape.heads * shape.head_dim);
  const TensorRef low =
      block.linear(module + "kv_a_proj_with_mqa", x, model.key_rank + model.turning, down);
  const auto parts =
      block.split(module + "split", low, {{"kv", model.key_rank}, {"positions", model.turning}});
  TensorRef kv = block.rms_norm(module + "kv_a_layernorm", parts[0]);
  kv = block.linear(module + "kv_b_proj", kv,
                    shape.heads * (shape.head_dim - model.turning + shape.value_dim));
  const auto heads = block.latent_heads(module + "latent_heads", q, kv, parts[1], kCos, kSin, shape,
                                        model.complex);
  const TensorRef mixed = block.attention(part.module, heads[0], heads[1], heads[2], shape);
  return block.linear(module + part.out, mixed, part.hidden, {.bias = part.out_bias});
}

TensorRef add_experts(BlockBuilder& block, TensorRef x, const Model& model) {
  const TensorRef routed = add_mixture(block, x, model.mixture);
  MlpPart shared = model.mlp;
  shared.module = model.mixture.module + ".shared_experts";
  shared.intermediate = model.shared;
  shared.bias = false;
  return block.add(model.mixture.module + ".add_shared", routed, add_gated_mlp(block, x, shared));
}

Block layer_of(const Graph& graph, const Model& model, int kind) {
  const bool dense = (kind & kDense) != 0;
  AttentionPart attention = model.attention;
  if ((kind & kWindowed) != 0) attention.shape.window = model.window;
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  TensorRef h = block.rms_norm("input_layernorm", x);
  h = model.latent ? add_latent_attention(block, model, h) : add_attention(block, h, attention);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.rms_norm("post_attention_layernorm", middle);
  h = dense ? add_gated_mlp(block, h, model.mlp) : add_experts(block, h, model);
  return block.finish(block.add("residual_mlp", middle, h));
}

Graph finish(ConfigReader& config, const SampleShape& sample, const Model& model) {
  Graph graph = start_graph(config, model.sizes, sample);
  const std::int64_t turning = model.latent ? model.turning : model.attention.rotary_dims;
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = turning,
                    .rotary_name = "model.rotary_emb",
                    .complex_rotary = model.complex});
  std::vector<int> kinds = model.windows;
  kinds.resize(static_cast<std::size_t>(model.sizes.layers), 0);
  for (std::int64_t i = 0; i < std::min(model.dense, model.sizes.layers); ++i) {
    kinds[static_cast<std::size_t>(i)] |= kDense;
  }
  add_layers(graph, kinds, [&](int kind) { return layer_of(graph, model, kind); });
  add_head(graph, model.sizes,
           {.norm = HeadOptions::Norm::rms,
            .norm_name = "model.norm",
            .embedding_name = "model.embed_tokens"});
  return graph;
}

struct Defaults {
  SizeDefaults sizes;
  std::int64_t intermediate, expert_width, experts, chosen, shared, dense, groups;
  double scale;
};

Model read_common(ConfigReader& config, const Defaults& defaults) {
  Model model;
  model.sizes = read_sizes(config, defaults.sizes);
  model.attention = attention_part(model.sizes);
  model.attention.qkv_bias = model.attention.out_bias = config.flag({"attention_bias"}, false);
  model.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  model.mlp.intermediate = config.whole({"intermediate_size"}, defaults.intermediate, kWideLimits);
  model.mlp.activation = config.activation({"hidden_act"}, "silu");
  model.dense = config.whole({"first_k_dense_replace"}, defaults.dense, {0, kLayerLimits.most});
  MixturePart& part = model.mixture;
  part.module = "mlp";
  part.names = {.gate = "gate_proj", .down = "down_proj", .up = "up_proj"};
  part.activation = model.mlp.activation;
  part.shape.wide_router = true;
  part.shape.experts = config.whole({"n_routed_experts"}, defaults.experts, kExpertLimits);
  part.shape.chosen = config.whole({"num_experts_per_tok"}, defaults.chosen, kExpertLimits);
  part.shape.intermediate =
      config.whole({"moe_intermediate_size"}, defaults.expert_width, kWideLimits);
  part.shape.groups = config.whole({"n_group"}, defaults.groups, kExpertLimits);
  part.shape.weight_scale =
      config.real({"routed_scaling_factor"}, defaults.scale, -kLargestScale, kLargestScale);
  model.shared =
      part.shape.intermediate * config.whole({"n_shared_experts"}, defaults.shared, kExpertLimits);
  if (part.shape.chosen > part.shape.experts) {
    config.reject("num_experts_per_tok", std::to_string(part.shape.chosen),
                  "at most the " + std::to_string(part.shape.experts) + " of n_routed_experts");
  }
  return model;
}

void read_latent(ConfigReader& config, Model& model) {
  model.latent = true;
  if (!config.is_null("q_lora_rank")) {
    model.query_rank = config.whole({"q_lora_rank"}, 1536, kHiddenLimits);
  }
  model.key_rank = config.whole({"kv_lora_rank"}, 512, kHiddenLimits);
  model.turning = config.whole({"qk_rope_head_dim"}, 64, kHiddenLimits);
  AttentionShape& shape = model.attention.shape;
  shape.kv_heads = shape.heads;
  shape.head_dim = model.turning + config.whole({"qk_nope_head_dim"}, 128, kHiddenLimits);
  shape.value_dim = config.whole({"v_head_dim"}, 128, kHiddenLimits);
  shape.one_width = true;
}

Routing sigmoid_routing(ConfigReader& config, bool fallback = true) {
  return config.flag({"norm_topk_prob"}, fallback) ? Routing::sigmoid_normalised : Routing::sigmoid;
}

}  // namespace

Graph build_deepseek_v2(ConfigReader& config, const SampleShape& sample) {
  Model model = read_common(config, {.sizes = {.vocabulary = 32000,
                                               .hidden = 4096,
                                               .layers = 32,
                                               .heads = 32,
                                               .kv_heads = {},
                                               .head_dim = 64,
                                               .max_sequence = 2048,
                                               .tied = false},
                                     .intermediate = 11008,
                                     .expert_width = 1407,
                                     .experts = 64,
                                     .chosen = 1,
                                     .shared = 2,
                                     .dense = 0,
                                     .groups = 1,
                                     .scale = 1.0});
  read_latent(config, model);
  model.complex = true;
  model.mixture.shape.code = ExpertCode::sorted;
  model.mixture.shape.routing = Routing::softmax;
  if (config.text({"topk_method"}, "greedy") == "greedy") model.mixture.shape.groups = 0;
  if (config.flag({"mlp_bias"}, false)) {
    config.reject("mlp_bias", "true", "false: experts with biases are not built");
  }
  return finish(config, sample, model);
}

Graph build_deepseek_v3(ConfigReader& config, const SampleShape& sample) {
  Model model = read_common(config, {.sizes = {.vocabulary = 129280,
                                               .hidden = 7168,
                                               .layers = 61,
                                               .heads = 128,
                                               .kv_heads = 128,
                                               .head_dim = 64,
                                               .max_sequence = 4096,
                                               .tied = false},
                                     .intermediate = 18432,
                                     .expert_width = 2048,
                                     .experts = 256,
                                     .chosen = 8,
                                     .shared = 1,
                                     .dense = 3,
                                     .groups = 8,
                                     .scale = 2.5});
  read_latent(config, model);
  model.mixture.shape.routing = sigmoid_routing(config);
  return finish(config, sample, model);
}

Graph build_glm4_moe(ConfigReader& config, const SampleShape& sample) {
  Model model = read_common(config, {.sizes = {.vocabulary = 151552,
                                               .hidden = 4096,
                                               .layers = 46,
                                               .heads = 96,
                                               .kv_heads = 8,
                                               .head_dim = {},
                                               .max_sequence = 131072,
                                               .tied = false},
                                     .intermediate = 10944,
                                     .expert_width = 1408,
                                     .experts = 128,
                                     .chosen = 8,
                                     .shared = 1,
                                     .dense = 1,
                                     .groups = 1,
                                     .scale = 1.0});
  model.attention.out_bias = false;
  model.attention.rotary_dims = rotary_dims_of(config, model.sizes.head_dim, 0.5);
  model.attention.rotary_joins_rest = true;
  if (config.flag({"use_qk_norm"}, false)) model.attention.qk_norm = QkNorm::rms_per_head;
  model.mixture.shape.routing = sigmoid_routing(config);
  return finish(config, sample, model);
}

Graph build_dots1(ConfigReader& config, const SampleShape& sample) {
  Model model = read_common(config, {.sizes = {.vocabulary = 152064,
                                               .hidden = 4608,
                                               .layers = 62,
                                               .heads = 32,
                                               .kv_heads = 32,
                                               .head_dim = {},
                                               .max_sequence = 2048,
                                               .tied = false},
                                     .intermediate = 10944,
                                     .expert_width = 1408,
                                     .experts = 128,
                                     .chosen = 6,
                                     .shared = 2,
                                     .dense = 0,
                                     .groups = 1,
                                     .scale = 1.0});
  model.attention.qk_norm = QkNorm::rms_per_head;
  model.mixture.shape.routing = sigmoid_routing(config, false);
  const bool windows = !config.is_null("sliding_window");
  const std::int64_t first = config.whole({"max_window_layers"}, 62, {0, kLayerLimits.most});
  model.window = config.whole({"sliding_window"}, 4096, kWindowLimits);
  model.windows = window_kinds(config, model.sizes.layers,
                               [&](std::int64_t layer) { return windows && layer >= first; });
  return finish(config, sample, model);
}

}  // namespace steelyard::model
