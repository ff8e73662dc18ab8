// GPT models as Megatron-LM's own code builds them (megatron/core/models/gpt/gpt_model.py,
// transformer/transformer_layer.py, attention.py, mlp.py), from its arguments under their own
// names.
//
// The projections leave their bias to the operator behind them: fc1's goes into the activation,
// proj's and fc2's into the sum with the residual (skip_bias_add).
#include <fmt/format.h>

#include <cmath>

#include "model/decoder_parts.h"
#include "model/family.h"
#include "model/layer_pattern.h"

namespace steelyard::model {

namespace {

struct Megatron {
  Sizes sizes;
  std::int64_t inner = 0;  // feed-forward width
  bool gated = false;
  bool rms = false;
  bool bias = true, qkv_bias = true;
  bool qk_norm = false;
  bool embedding_norm = false;  // of BLOOM
  ActivationKind activation = ActivationKind::gelu;
  std::int64_t rotary_dims = 0;
  bool learned_positions = false, alibi = false;
  double hidden_dropout = 0.1, attention_dropout = 0.1;
  MixtureShape mixture;           // experts 0: none
  std::int64_t shared_inner = 0;  // feed-forward width of the experts that see every token
  std::vector<int> layer_kinds;   // by layer: kMixture, kWindow
  bool norms_in_linears = true;   // Transformer Engine's LayerNormLinear
  // Multi-latent attention: head_dim is c + r. query_rank 0: queries are not compressed.
  bool latent = false;
  std::int64_t query_rank = 0, key_rank = 0;
  std::int64_t turning = 0, value_dim = 0;  // r; of a value's head
  std::int64_t window = 0;                  // tokens; of the layers with kWindow
  bool sinks = false;                       // --softmax-type learnable: a weight per head
};

constexpr Limits kExpertLimits{1, 65'536};
constexpr int kMixture = 1, kWindow = 2;  // bits of a layer's kind

// megatron/training/vocab_utils.py (vocab_size_with_padding): up to a multiple of
// make-vocab-size-divisible-by x tensor-parallel ranks.
std::int64_t padded_vocabulary(ConfigReader& config) {
  if (const auto padded = config.optional_whole({"padded-vocab-size"}, kVocabularyLimits)) {
    return *padded;
  }
  const auto size = config.optional_whole({"vocab-size"}, kVocabularyLimits);
  if (!size) {
    config.reject("vocab-size", "nothing", "the number of tokens of the tokenizer",
                  "Megatron-LM reads it from the tokenizer's file: set model.set vocab-size");
    return 1;
  }
  const std::int64_t extra = config.whole({"vocab-extra-ids"}, 0, {0, kVocabularyLimits.most});
  const std::int64_t divisor =
      config.whole({"make-vocab-size-divisible-by"}, 128, kVocabularyLimits);
  const std::int64_t tensor = config.whole({"tensor-model-parallel-size"}, 1, {1, 65'536});
  const std::int64_t multiple = checked_multiply(divisor, tensor);
  return ceil_divide(*size + extra, multiple) * multiple;
}

void read_activation(ConfigReader& config, Megatron& model) {
  model.gated = config.flag({"swiglu"}, false) || config.flag({"quick-geglu"}, false);
  if (config.flag({"swiglu"}, false)) {
    model.activation = ActivationKind::silu;
  } else if (config.flag({"quick-geglu"}, false)) {
    model.activation = ActivationKind::quick_gelu;
  } else if (config.flag({"squared-relu"}, false)) {
    model.activation = ActivationKind::squared_relu;
  } else {
    model.activation = ActivationKind::gelu;
  }
}

void read_positions(ConfigReader& config, Megatron& model) {
  const std::string kind = config.text({"position-embedding-type"}, "learned_absolute");
  model.learned_positions = kind == "learned_absolute";
  model.alibi = kind == "alibi";
  if (kind == "rope" || kind == "yarn") {
    const double share = config.real({"rotary-percent"}, 1.0, 0.0, 1.0);
    const std::int64_t head = model.latent ? model.turning : model.sizes.head_dim;
    model.rotary_dims = static_cast<std::int64_t>(std::floor(static_cast<double>(head) * share));
  } else if (kind != "learned_absolute" && kind != "none" && kind != "alibi") {
    config.reject("position-embedding-type", kind, "learned_absolute, rope, yarn, alibi or none");
  }
}

// --moe-layer-freq: every n-th layer, or a list of 0 and 1 as Python writes it, ([0]*3+[1]*5).
std::vector<int> mixture_layers(ConfigReader& config, std::int64_t layers) {
  const std::string text = config.text({"moe-layer-freq"}, "1");
  const auto refuse = [&] {
    config.reject("moe-layer-freq", text,
                  fmt::format("a whole number, or 0 and 1 for each of the {} layers as in "
                              "([0]*1+[1]*{})",
                              layers, layers - 1));
    return std::vector<int>(static_cast<std::size_t>(layers), 1);
  };
  std::vector<int> kinds;
  if (const auto every = whole_of(text)) {
    if (*every < 1) return refuse();
    for (std::int64_t i = 0; i < layers; ++i) kinds.push_back(i % *every == 0 ? 1 : 0);
    return kinds;
  }
  const std::optional<std::vector<int>> pattern = layer_pattern(text);
  if (!pattern || std::ssize(*pattern) != layers) return refuse();
  return *pattern;
}

// core/extensions/transformer_engine.py, TEDotProductAttention: "(128, 0)" is a window of 128
// tokens before each; --window-attn-skip-freq: every n-th layer sees all, or a list where 1 means a
// window.
void read_windows(ConfigReader& config, Megatron& model) {
  const std::string softmax = config.text({"softmax-type"}, "vanilla");
  if (softmax != "vanilla" && softmax != "off-by-one" && softmax != "learnable") {
    config.reject("softmax-type", softmax, "vanilla, off-by-one or learnable");
  }
  model.sinks = softmax == "learnable";
  if (!config.has("window-size")) return;
  const std::string text = config.text({"window-size"}, "");
  const std::size_t digits = text.find_first_of("0123456789");
  const std::size_t end = text.find_first_not_of("0123456789", digits);
  const auto window = digits == std::string::npos
                          ? std::nullopt
                          : whole_of(std::string_view(text).substr(digits, end - digits));
  if (!window || text.find('-') != std::string::npos) {
    return config.reject("window-size", text, "(tokens before, 0)");
  }
  model.window = *window + 1;  // and the token itself
  std::vector<int> windows(model.layer_kinds.size(), 1);
  const std::string skips = config.text({"window-attn-skip-freq"}, "");
  if (const auto every = whole_of(skips); every && *every > 0) {
    for (std::size_t i = 0; i < windows.size(); ++i) {
      windows[i] = (static_cast<std::int64_t>(i) + 1) % *every == 0 ? 0 : 1;
    }
  } else if (!skips.empty()) {
    const auto pattern = layer_pattern(skips);
    if (!pattern || pattern->size() != windows.size()) {
      return config.reject("window-attn-skip-freq", skips, "a whole number, or 0 and 1 by layer");
    }
    windows = *pattern;
  }
  for (std::size_t i = 0; i < windows.size(); ++i) {
    if (windows[i] != 0) model.layer_kinds[i] |= kWindow;
  }
}

// Keys and values of all heads; the widths are those of the arguments.
void read_latent(ConfigReader& config, Megatron& model) {
  model.latent = config.flag({"multi-latent-attention"}, false);
  model.norms_in_linears = config.text({"transformer-impl"}, "transformer_engine") != "local";
  if (!model.latent) return;
  Sizes& sizes = model.sizes;
  sizes.kv_heads = sizes.heads;
  model.query_rank = config.whole({"q-lora-rank"}, 0, {0, 1'048'576});
  model.key_rank = config.whole({"kv-lora-rank"}, 32, kHiddenLimits);
  model.turning = config.whole({"qk-pos-emb-head-dim"}, 64, kHiddenLimits);
  model.value_dim = config.whole({"v-head-dim"}, 128, kHiddenLimits);
  sizes.head_dim = model.turning + config.whole({"qk-head-dim"}, 128, kHiddenLimits);
}

void read_mixture(ConfigReader& config, Megatron& model) {
  const auto experts = config.optional_whole({"num-experts"}, kExpertLimits);
  model.layer_kinds.assign(static_cast<std::size_t>(std::max<std::int64_t>(model.sizes.layers, 0)),
                           0);
  if (!experts) return;
  model.mixture.experts = *experts;
  model.mixture.chosen = config.whole({"moe-router-topk"}, 2, kExpertLimits);
  model.mixture.intermediate = config.whole({"moe-ffn-hidden-size"}, model.inner, kWideLimits);
  model.shared_inner = config.whole({"moe-shared-expert-intermediate-size"}, 0, {0, 16'777'216});
  model.layer_kinds = mixture_layers(config, model.sizes.layers);
  if (model.mixture.chosen > model.mixture.experts) {
    config.reject("moe-router-topk", std::to_string(model.mixture.chosen),
                  fmt::format("at most the {} of num-experts", model.mixture.experts));
  }
  if (config.has("moe-latent-size")) {
    config.reject("moe-latent-size", "a value", "no such key", "not built in this version");
  }
}

// Parts of the configuration whose operators are not built.
void reject_unbuilt(ConfigReader& config) {
  struct Unbuilt {
    const char* key;
    const char* about;
  };
  constexpr Unbuilt kFlags[] = {{"is-hybrid-model", "Mamba layers"},
                                {"fp32-residual-connection", "a residual stream in fp32"}};
  for (const Unbuilt& unbuilt : kFlags) {
    if (!config.flag({unbuilt.key}, false)) continue;
    config.reject(unbuilt.key, "true", "false",
                  fmt::format("{} of Megatron-LM: not built in this version", unbuilt.about));
  }
  constexpr Unbuilt kPresent[] = {{"mtp-num-layers", "multi-token prediction"},
                                  {"hybrid-layer-pattern", "Mamba layers"}};
  for (const Unbuilt& unbuilt : kPresent) {
    if (!config.has(unbuilt.key)) continue;
    config.reject(unbuilt.key, "a value", "no such key",
                  fmt::format("{} of Megatron-LM: not built in this version", unbuilt.about));
  }
}

Megatron read_megatron(ConfigReader& config) {
  reject_unbuilt(config);
  Megatron model;
  Sizes& sizes = model.sizes;
  sizes.vocabulary = padded_vocabulary(config);
  sizes.hidden = config.whole({"hidden-size"}, 0, kHiddenLimits);
  sizes.layers = config.whole({"num-layers"}, 0, kLayerLimits);
  sizes.heads = config.whole({"num-attention-heads"}, 1, kHeadLimits);
  sizes.kv_heads = config.whole({"num-query-groups"}, sizes.heads, kHeadLimits);
  check_kv_heads(config, sizes, "num-query-groups");
  sizes.head_dim = config.whole({"kv-channels"}, sizes.hidden / sizes.heads, kHiddenLimits);
  sizes.max_sequence = config.whole({"max-position-embeddings"}, 1, kPositionLimits);
  sizes.tied = !config.flag({"untie-embeddings-and-output-weights"}, false);
  model.inner = config.whole({"ffn-hidden-size"}, 4 * sizes.hidden, kWideLimits);
  const std::string norm = config.text({"normalization"}, "LayerNorm");
  if (norm != "LayerNorm" && norm != "RMSNorm") {
    config.reject("normalization", norm, "LayerNorm or RMSNorm");
  }
  model.rms = norm == "RMSNorm";
  model.bias = config.flag({"add-bias-linear"}, true);
  model.qkv_bias = model.bias || config.flag({"add-qkv-bias"}, false);
  model.qk_norm = config.flag({"qk-layernorm"}, false);
  model.embedding_norm = config.flag({"embed-layernorm"}, false);
  model.hidden_dropout = config.probability({"hidden-dropout"}, 0.1);
  model.attention_dropout = config.probability({"attention-dropout"}, 0.1);
  read_activation(config, model);
  read_mixture(config, model);
  read_windows(config, model);
  read_latent(config, model);
  read_positions(config, model);
  return model;
}

TensorRef plain_norm(BlockBuilder& block, const Megatron& model, const std::string& name,
                     TensorRef x) {
  return model.rms ? block.rms_norm(name, x) : block.layer_norm(name, x);
}

// A norm with a module of its own, or inside of the linear behind it.
TensorRef normed(BlockBuilder& block, const Megatron& model, const std::string& name, TensorRef x,
                 bool inside) {
  const TensorRef y = plain_norm(block, model, name, x);
  if (inside && model.norms_in_linears) block.inside_next();
  return y;
}

AttentionShape attention_shape(const Megatron& model, bool window) {
  AttentionShape shape;
  shape.heads = model.sizes.heads;
  shape.kv_heads = model.sizes.kv_heads;
  shape.head_dim = model.sizes.head_dim;
  shape.window = window ? model.window : 0;
  shape.alibi = model.alibi;
  shape.dropout = model.attention_dropout;
  return shape;
}

TensorRef core_attention(BlockBuilder& block, const Megatron& model, TensorRef q, TensorRef k,
                         TensorRef v, const AttentionShape& shape) {
  return block.attention("self_attention.core_attention", q, k, v, shape,
                         model.sinks ? "self_attention.core_attention.softmax_offset" : "");
}

// core/transformer/multi_latent_attention.py: queries, keys and values from compressed ones.
TensorRef latent_attention_of(BlockBuilder& block, const Megatron& model, TensorRef x) {
  const Sizes& sizes = model.sizes;
  AttentionShape shape = attention_shape(model, false);
  shape.value_dim = model.value_dim;
  TensorRef q = x;
  if (model.query_rank > 0) {
    q = block.linear("self_attention.linear_q_down_proj", x, model.query_rank,
                     {.replicated = true});
  }
  const TensorRef down = block.linear("self_attention.linear_kv_down_proj", x,
                                      model.key_rank + model.turning, {.replicated = true});
  const auto parts = block.split("self_attention.split", down,
                                 {{"kv", model.key_rank}, {"positions", model.turning}});
  if (model.query_rank > 0 && model.qk_norm) {
    q = normed(block, model, "self_attention.q_layernorm", q, true);
  }
  q = block.linear(
      model.query_rank > 0 ? "self_attention.linear_q_up_proj" : "self_attention.linear_q_proj", q,
      sizes.heads * sizes.head_dim);
  TensorRef kv = parts[0];
  if (model.qk_norm) kv = normed(block, model, "self_attention.kv_layernorm", kv, true);
  kv = block.linear("self_attention.linear_kv_up_proj", kv,
                    sizes.heads * (sizes.head_dim - model.turning + model.value_dim));
  const auto heads =
      block.latent_heads("self_attention.latent_heads", q, kv, parts[1], kCos, shape);
  return core_attention(block, model, heads[0], heads[1], heads[2], shape);
}

TensorRef attention_of(BlockBuilder& block, const Megatron& model, TensorRef x, bool window) {
  const Sizes& sizes = model.sizes;
  const std::int64_t query = sizes.heads * sizes.head_dim;
  const std::int64_t key = sizes.kv_heads * sizes.head_dim;
  const TensorRef fused =
      block.linear("self_attention.linear_qkv", x, query + 2 * key, {.bias = model.qkv_bias});
  const auto parts =
      block.split("self_attention.split", fused, {{"q", query}, {"k", key}, {"v", key}});
  TensorRef q = block.heads("self_attention.q_heads", parts[0], sizes.heads);
  TensorRef k = block.heads("self_attention.k_heads", parts[1], sizes.kv_heads);
  const TensorRef v = block.heads("self_attention.v_heads", parts[2], sizes.kv_heads);
  if (model.qk_norm) {
    q = plain_norm(block, model, "self_attention.q_layernorm", q);
    k = plain_norm(block, model, "self_attention.k_layernorm", k);
  }
  if (model.rotary_dims > 0) {
    const auto turned = block.rotary("self_attention.rotary", q, k, kCos, kSin, model.rotary_dims);
    q = turned.first;
    k = turned.second;
  }
  return core_attention(block, model, q, k, v, attention_shape(model, window));
}

// fc1, activation, fc2 on all tokens.
TensorRef feed_forward(BlockBuilder& block, const Megatron& model, TensorRef h,
                       const std::string& module, std::int64_t inner, bool bias) {
  h = block.linear(module + ".linear_fc1", h, model.gated ? 2 * inner : inner);
  h = block.bias_activation(module + ".activation_func", h, model.activation, model.gated,
                            bias ? module + ".linear_fc1.bias" : "");
  return block.linear(module + ".linear_fc2", h, model.sizes.hidden);
}

// megatron/core/transformer/moe/moe_layer.py: routed experts and the one that sees every token.
TensorRef mixture_of(BlockBuilder& block, const Megatron& model, TensorRef h) {
  const auto [weights, chosen] = block.router("mlp.router", h, model.mixture);
  const auto assigned = block.expert_assignment("mlp.token_dispatcher", chosen, model.mixture);
  const TensorRef routed =
      block.two_matrix_experts("mlp.experts.local_experts", h, weights, assigned, model.mixture,
                               model.activation, model.gated);
  if (model.shared_inner == 0) return routed;
  const TensorRef shared =
      feed_forward(block, model, h, "mlp.shared_experts", model.shared_inner, false);
  return block.add("mlp.sum", routed, shared);
}

Block layer_of(const Graph& graph, const Megatron& model, int kind) {
  const bool mixture = (kind & kMixture) != 0;
  BlockBuilder block(graph, "decoder.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  TensorRef h = normed(block, model, "input_layernorm", x, !model.latent);
  h = model.latent ? latent_attention_of(block, model, h)
                   : attention_of(block, model, h, (kind & kWindow) != 0);
  h = block.linear("self_attention.linear_proj", h, model.sizes.hidden);
  const TensorRef middle =
      block.bias_dropout_add("self_attn_bda", h, x, model.hidden_dropout,
                             model.bias ? "self_attention.linear_proj.bias" : "");
  h = normed(block, model, "pre_mlp_layernorm", middle, !mixture);
  h = mixture ? mixture_of(block, model, h)
              : feed_forward(block, model, h, "mlp", model.inner, model.bias);
  return block.finish(block.bias_dropout_add("mlp_bda", h, middle, model.hidden_dropout,
                                             model.bias && !mixture ? "mlp.linear_fc2.bias" : ""));
}

void add_embedding(Graph& graph, const Megatron& model) {
  BlockBuilder block(graph, "embed");
  TensorRef x =
      block.embedding("embedding.word_embeddings", kTokenIds, graph.vocabulary, graph.hidden);
  if (model.learned_positions) {
    const TensorRef positions = block.position_embedding("embedding.position_embeddings",
                                                         model.sizes.max_sequence, graph.hidden);
    x = block.add("embedding.add_positions", x, positions);
  }
  if (model.embedding_norm) x = block.layer_norm("embedding.norm", x);
  x = block.dropout("embedding.embedding_dropout", x, model.hidden_dropout);
  if (model.rotary_dims > 0) add_rotary_table(graph, block, "rotary_pos_emb", model.rotary_dims);
  graph.segments.push_back({1, {block.finish(x)}});
}

}  // namespace

Graph build_megatron_gpt(ConfigReader& config, const SampleShape& sample) {
  const Megatron model = read_megatron(config);
  Graph graph = start_graph(config, model.sizes, sample);
  if (model.learned_positions) {
    check_positions(config, graph, model.sizes.max_sequence, "max-position-embeddings");
  }
  add_embedding(graph, model);
  add_layers(graph, model.layer_kinds, [&](int kind) { return layer_of(graph, model, kind); });
  add_head(graph, model.sizes,
           {.norm = model.rms ? HeadOptions::Norm::rms : HeadOptions::Norm::layer,
            .norm_name = "decoder.final_layernorm",
            .embedding_name = "embedding.word_embeddings",
            .head_name = "output_layer"});
  return graph;
}

}  // namespace steelyard::model
