// T5 and mT5 (transformers: modeling_t5.py, modeling_mt5.py): RMS norms before each half, a learned
// bias per head and bucketed distance that the first layer of a stack makes for all of them, scores
// that are not scaled, no biases.
#include "model/encoder_decoder.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

constexpr TensorRef kEncoderBias{true, 6};  // [B,n,S,S]
constexpr TensorRef kDecoderBias{true, 7};  // [B,n,T,T]
constexpr TensorRef kCrossBias{true, 8};    // [B,n,T,S]

struct T5 {
  Sizes sizes;
  std::int64_t decoder_layers = 0, feed_forward = 0, buckets = 32;
  bool gated = false;
  ActivationKind activation = ActivationKind::relu;
  double dropout = 0.1;
};

struct T5Defaults {
  std::int64_t vocabulary, feed_forward, layers, heads;
  std::string_view projection;
  bool tied;
};

// "gated-gelu" is gelu_new, for the sake of old checkpoints (configuration_t5.py).
void read_projection(ConfigReader& config, T5& t5, std::string_view fallback) {
  const std::string word =
      config.choice({"feed_forward_proj"}, fallback,
                    {"relu", "gated-gelu", "gated-relu", "gated-silu", "gelu", "silu"});
  t5.gated = word.starts_with("gated-");
  if (word.ends_with("silu")) t5.activation = ActivationKind::silu;
  if (word == "gelu") t5.activation = ActivationKind::gelu;
  if (word == "gated-gelu") t5.activation = ActivationKind::gelu_new;
}

T5 read_t5(ConfigReader& config, const T5Defaults& defaults) {
  T5 t5;
  Sizes& sizes = t5.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, defaults.vocabulary, kVocabularyLimits);
  sizes.hidden = config.whole({"d_model", "hidden_size"}, 512, kHiddenLimits);
  sizes.layers = config.whole({"num_layers", "num_hidden_layers"}, defaults.layers, kLayerLimits);
  sizes.heads = config.whole({"num_heads", "num_attention_heads"}, defaults.heads, kHeadLimits);
  sizes.kv_heads = sizes.heads;
  sizes.head_dim = config.whole({"d_kv", "head_dim"}, 64, kHiddenLimits);
  sizes.tied = config.flag({"tie_word_embeddings"}, defaults.tied);
  t5.decoder_layers = config.whole({"num_decoder_layers"}, sizes.layers, kLayerLimits);
  t5.feed_forward = config.whole({"d_ff"}, defaults.feed_forward, kWideLimits);
  t5.buckets = config.whole({"relative_attention_num_buckets"}, 32, kVocabularyLimits);
  t5.dropout = config.probability({"dropout_rate"}, 0.1);
  read_projection(config, t5, defaults.projection);
  return t5;
}

// T5LayerSelfAttention, T5LayerCrossAttention: x + dropout(attention(norm(x))). `keys`: what keys
// and values are projected from; index -1: the same as queries.
TensorRef attention_half(BlockBuilder& block, TensorRef x, const T5& t5, const std::string& layer,
                         const std::string& module, TensorRef keys, TensorRef bias, bool decodes) {
  const Sizes& sizes = t5.sizes;
  const bool cross = keys.index >= 0;
  const std::int64_t inner = sizes.heads * sizes.head_dim;
  const std::string name = layer + "." + module;
  const TensorRef normed = block.narrow_rms_norm(layer + ".layer_norm", x);
  const auto projected = [&](const char* part, TensorRef from) {
    const std::string full = name + "." + part;
    return block.heads(full + "_heads", block.linear(full, from, inner), sizes.heads);
  };
  const TensorRef q = projected("q", normed);
  const TensorRef k = projected("k", cross ? keys : normed);
  const TensorRef v = projected("v", cross ? keys : normed);
  const AttentionShape shape{.heads = sizes.heads,
                             .kv_heads = sizes.heads,
                             .head_dim = sizes.head_dim,
                             .causal = decodes && !cross,
                             .dropout = t5.dropout,
                             .returns_cache = decodes,
                             .learned_bias = true,
                             .drops_cache_recomputing = true};
  TensorRef h = block.masked_attention(name, q, k, v, bias, shape);
  h = block.linear(name + ".o", h, sizes.hidden);
  h = block.dropout(layer + ".dropout", h, t5.dropout);
  return block.add(layer + ".residual", x, h);
}

// T5LayerFF.
TensorRef feed_forward_half(BlockBuilder& block, TensorRef x, const T5& t5,
                            const std::string& layer) {
  const std::string name = layer + ".DenseReluDense.";
  const TensorRef normed = block.narrow_rms_norm(layer + ".layer_norm", x);
  TensorRef h;
  if (t5.gated) {
    const TensorRef gate = block.linear(name + "wi_0", normed, t5.feed_forward);
    const TensorRef up = block.linear(name + "wi_1", normed, t5.feed_forward);
    h = block.gated_activation(name + "act", gate, up, t5.activation);
  } else {
    h = block.linear(name + "wi", normed, t5.feed_forward);
    h = block.activation(name + "act", h, t5.activation);
  }
  h = block.dropout(name + "dropout", h, t5.dropout);
  h = block.linear(name + "wo", h, t5.sizes.hidden);
  h = block.dropout(layer + ".dropout", h, t5.dropout);
  return block.add(layer + ".residual", x, h);
}

Block encoder_layer(const Graph& graph, const T5& t5) {
  BlockBuilder block(graph, "encoder.block");
  TensorRef x = block.input(source_stream(graph));
  x = attention_half(block, x, t5, "layer.0", "SelfAttention", {}, kEncoderBias, false);
  return block.finish(feed_forward_half(block, x, t5, "layer.1"));
}

Block decoder_layer(const Graph& graph, const T5& t5) {
  BlockBuilder block(graph, "decoder.block");
  TensorRef x = block.input(target_stream(graph));
  x = attention_half(block, x, t5, "layer.0", "SelfAttention", {}, kDecoderBias, true);
  x = attention_half(block, x, t5, "layer.1", "EncDecAttention", kEncoderStates, kCrossBias, true);
  return block.finish(feed_forward_half(block, x, t5, "layer.2"));
}

std::string bias_name(const std::string& stack) {
  return stack + ".block.0.layer.0.SelfAttention.relative_attention_bias";
}

// The first layer makes the bias of all in its own attention; here the block before it does.
void add_encoder_start(Graph& graph, const T5& t5) {
  BlockBuilder block(graph, "embed");
  block.padding_mask("encoder.attention_mask", kSourceMask, kSourcePadding);
  const std::string name = "encoder.embed_tokens";
  TensorRef x = block.embedding(name, kSourceIds, graph.vocabulary, graph.hidden);
  x = block.dropout("encoder.dropout", x, t5.dropout);
  const TensorRef bias = block.relative_bias(bias_name("encoder"), t5.buckets, t5.sizes.heads,
                                             graph.sequence, graph.sequence);
  block.add("encoder.position_bias", bias, kSourcePadding);
  block.publish(kEncoderBias);
  graph.segments.push_back({1, {block.finish(x)}});
}

void add_middle(Graph& graph, const T5& t5) {
  const std::int64_t targets = graph.decoder_sequence;
  BlockBuilder block(graph, "middle");
  TensorRef h =
      block.narrow_rms_norm("encoder.final_layer_norm", block.input(source_stream(graph)));
  block.dropout("encoder.final_dropout", h, t5.dropout);
  block.publish(kEncoderStates);
  TensorRef x = block.embedding("decoder.embed_tokens", kTargetIds, graph.vocabulary, graph.hidden,
                                "encoder.embed_tokens.weight");
  x = block.dropout("decoder.dropout", x, t5.dropout);
  const TensorRef mask = block.row_mask("decoder.causal_mask", kTargetIds, targets);
  const TensorRef bias =
      block.relative_bias(bias_name("decoder"), t5.buckets, t5.sizes.heads, targets, targets);
  block.add("decoder.position_bias", bias, mask);
  block.publish(kDecoderBias);
  const TensorRef none = block.relative_bias("decoder.encoder_decoder_position_bias", 0,
                                             t5.sizes.heads, targets, graph.sequence);
  block.add("decoder.encoder_decoder_bias", none, kSourcePadding);
  block.publish(kCrossBias);
  graph.segments.push_back({1, {block.finish(x)}});
}

void add_t5_head(Graph& graph, const T5& t5) {
  BlockBuilder block(graph, "head");
  TensorRef x =
      block.narrow_rms_norm("decoder.final_layer_norm", block.input(target_stream(graph)));
  x = block.dropout("decoder.final_dropout", x, t5.dropout);
  // A head that shares the embedding reads states divided by sqrt(d_model).
  if (t5.sizes.tied) x = block.scale("lm_head.scale", x, 1.0);
  x = block.linear("lm_head", x, graph.vocabulary,
                   {.tied_to = t5.sizes.tied ? "encoder.embed_tokens.weight" : ""});
  // CrossEntropyLoss()(lm_logits.view(-1, V), labels.view(-1)): the labels are the decoder's own.
  graph.segments.push_back(
      {1, {block.finish(block.loss(OperatorKind::masked_lm_loss, {x, kTargetLabels}, "loss"))}});
}

Graph finish_t5(const ConfigReader& config, const SampleShape& sample, const T5& t5) {
  Graph graph = start_encoder_decoder(config, t5.sizes, sample);
  graph.layers += t5.decoder_layers;
  const std::int64_t heads = t5.sizes.heads;
  const std::int64_t sources = graph.sequence;
  const std::int64_t targets = graph.decoder_sequence;
  const auto bias = [&](const char* name, std::int64_t queries, std::int64_t keys) {
    graph.shared.push_back({name, {graph.batch, heads, queries, keys}, ElementKind::real});
  };
  bias("encoder_position_bias", sources, sources);
  bias("decoder_position_bias", targets, targets);
  bias("encoder_decoder_position_bias", targets, sources);
  add_encoder_start(graph, t5);
  graph.segments.push_back({t5.sizes.layers, {encoder_layer(graph, t5)}});
  add_middle(graph, t5);
  graph.segments.push_back({t5.decoder_layers, {decoder_layer(graph, t5)}});
  add_t5_head(graph, t5);
  return graph;
}

}  // namespace

Graph build_t5(ConfigReader& config, const SampleShape& sample) {
  const T5 t5 = read_t5(config, {.vocabulary = 32128,
                                 .feed_forward = 2048,
                                 .layers = 6,
                                 .heads = 8,
                                 .projection = "relu",
                                 .tied = true});
  return finish_t5(config, sample, t5);
}

Graph build_mt5(ConfigReader& config, const SampleShape& sample) {
  const T5 t5 = read_t5(config, {.vocabulary = 250112,
                                 .feed_forward = 1024,
                                 .layers = 8,
                                 .heads = 6,
                                 .projection = "gated-gelu",
                                 .tied = false});
  return finish_t5(config, sample, t5);
}

}  // namespace steelyard::model
