// GPT models as Megatron-LM's own code builds them (megatron/core/models/gpt/gpt_model.py,
// transformer/transformer_layer.py, attention.py, mlp.py), from its arguments under their own
// names.
//
// The projections leave their bias to the operator behind them: fc1's goes into the activation,
// proj's and fc2's into the sum with the residual (skip_bias_add).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "model/layer_pattern.h"
#include "model/megatron_layers.h"

namespace steelyard::model {

namespace {

constexpr Limits kExpertLimits{1, 65'536};

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
  // Latent attention has a table of its own whatever the model's positions are
  // (multi_latent_attention.py, by rope_type).
  if (kind == "rope" || kind == "yarn" || model.latent) {
    const double share = config.real({"rotary-percent"}, 1.0, 0.0, 1.0);
    const std::int64_t head = model.latent ? model.turning : model.sizes.head_dim;
    model.rotary_dims = static_cast<std::int64_t>(std::floor(static_cast<double>(head) * share));
  }
  constexpr std::array kKinds = {"learned_absolute", "rope", "yarn", "alibi", "none"};
  if (std::ranges::find(kKinds, kind) == kKinds.end()) {
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
  const auto& kinds = model.layer_kinds;
  model.latent = config.flag({"multi-latent-attention"}, false) ||
                 (model.hybrid && std::find(kinds.begin(), kinds.end(), '+') != kinds.end());
  model.norms_in_linears =
      model.hybrid || config.text({"transformer-impl"}, "transformer_engine") != "local";
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
  model.latent_experts = config.whole({"moe-latent-size"}, 0, {0, 1'048'576});
}

// core/models/hybrid/hybrid_layer_allocation.py: a letter per layer, | between the parts of
// pipeline stages, / before the layers of each further prediction.
std::vector<int> hybrid_kinds(ConfigReader& config, std::string_view letters) {
  std::vector<int> kinds;
  for (const char letter : letters) {
    if (letter == '|') continue;
    if (std::string_view("M*+-E").find(letter) == std::string_view::npos) {
      config.reject("hybrid-layer-pattern", std::string(1, letter), "M, *, +, -, E, | and /",
                    letter == 'G' || letter == 'D' ? "not built in this version" : "");
      return {};
    }
    kinds.push_back(letter);
  }
  return kinds;
}

// core/ssm/mamba_mixer.py: without a number of heads the mixer is twice as wide as the model.
ScanShape hybrid_scan(ConfigReader& config, std::int64_t hidden) {
  ScanShape scan;
  scan.head_dim = config.whole({"mamba-head-dim"}, 64, kHiddenLimits);
  scan.state = config.whole({"mamba-state-dim"}, 128, kHiddenLimits);
  scan.groups = config.whole({"mamba-num-groups"}, 8, kHeadLimits);
  scan.heads = config.whole({"mamba-num-heads"},
                            std::max<std::int64_t>(1, 2 * hidden / scan.head_dim), kHeadLimits);
  scan.chunk = 128;
  scan.tokens_first = true;
  if (scan.heads % scan.groups != 0) {
    config.reject("mamba-num-groups", std::to_string(scan.groups),
                  fmt::format("a divisor of the {} heads", scan.heads));
  }
  return scan;
}

void read_hybrid(ConfigReader& config, Megatron& model) {
  const std::string pattern = config.text({"hybrid-layer-pattern"}, "");
  if (pattern.empty()) {
    if (config.flag({"is-hybrid-model"}, false)) {
      config.reject("hybrid-layer-pattern", "nothing", "a letter per layer, as in M-M*-");
    }
    return;
  }
  const std::size_t end = pattern.find('/');
  model.hybrid = true;
  model.layer_kinds = hybrid_kinds(config, std::string_view(pattern).substr(0, end));
  model.sizes.layers = std::ssize(model.layer_kinds);
  model.scan = hybrid_scan(config, model.sizes.hidden);
  model.qk_norm = false;  // hybrid_stack_spec names none
  model.predictions = std::count(pattern.begin(), pattern.end(), '/');
  if (model.predictions == 0) return;
  const std::string_view further = std::string_view(pattern).substr(end + 1);
  model.prediction_kinds = hybrid_kinds(config, further.substr(0, further.find('/')));
}

// core/transformer/multi_token_prediction.py: one layer like the model's last for each prediction.
void read_predictions(ConfigReader& config, Megatron& model) {
  model.shares_predictions = config.flag({"mtp-use-repeated-layer"}, false);
  if (model.hybrid || model.layer_kinds.empty()) return;
  model.predictions = config.whole({"mtp-num-layers"}, 0, {0, 64});
  model.prediction_kinds = {model.layer_kinds.back()};
  if (model.predictions > 0 && model.learned_positions) {
    config.reject("mtp-num-layers", std::to_string(model.predictions),
                  "0 with position-embedding-type learned_absolute");
  }
}

// Parts of the configuration whose operators are not built.
void reject_unbuilt(ConfigReader& config) {
  if (!config.flag({"fp32-residual-connection"}, false)) return;
  config.reject("fp32-residual-connection", "true", "false",
                "a residual stream in fp32 of Megatron-LM: not built in this version");
}

}  // namespace

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
  model.fuses_activation = config.flag({"bias-activation-fusion"}, true);
  model.legacy = config.flag({"use-legacy-models"}, false);
  model.fuses_dropout = config.flag({"bias-dropout-fusion"}, true);
  model.hidden_dropout = config.probability({"hidden-dropout"}, 0.1);
  model.attention_dropout = config.probability({"attention-dropout"}, 0.1);
  read_activation(config, model);
  read_mixture(config, model);
  read_windows(config, model);
  read_hybrid(config, model);
  read_latent(config, model);
  read_positions(config, model);
  read_predictions(config, model);
  return model;
}

namespace {

Block layer_of(const Graph& graph, const Megatron& model, int kind) {
  BlockBuilder block(graph, "decoder.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  return block.finish(megatron_layer(block, model, kind, x));
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
  if (model.predictions > 0) {
    graph.segments.push_back({1, {megatron_predictions(graph, model)}});
    graph.segments.push_back({1, {megatron_prediction_head(graph, model)}});
    graph.tail = 2;
    return graph;
  }
  add_head(graph, model.sizes,
           {.norm = model.rms ? HeadOptions::Norm::rms : HeadOptions::Norm::layer,
            .norm_name = model.hybrid ? "decoder.final_norm" : "decoder.final_layernorm",
            .embedding_name = "embedding.word_embeddings",
            .head_name = "output_layer"});
  return graph;
}

}  // namespace steelyard::model
