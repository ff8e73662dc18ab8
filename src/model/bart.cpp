// BART and its kin (transformers 4: modeling_bart.py, modeling_mbart.py, modeling_marian.py,
// modeling_pegasus.py, modeling_blenderbot.py): the original transformer with an encoder and a
// decoder. They differ in where they norm and in how they tell positions.
#include "model/encoder_decoder.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

constexpr TensorRef kCrossPadding{true, 6};  // [B,1,T,S]

// Positions from a table that learns, from one whose first rows are left out, or from fixed sines.
enum class Positions { learned, learned_with_offset, sines };
constexpr std::int64_t kPositionOffset = 2;  // BartLearnedPositionalEmbedding.offset

struct Bart {
  Sizes sizes;
  std::int64_t decoder_layers = 12, decoder_heads = 16;
  std::int64_t encoder_inner = 4096, decoder_inner = 4096;
  ActivationKind activation = ActivationKind::gelu;
  double dropout = 0.1, attention_dropout = 0.0, activation_dropout = 0.0;
  Positions positions = Positions::learned;
  bool norms_before = false;  // each half; then the stack ends with a norm
  bool norms_embedding = false;
};

struct BartDefaults {
  std::int64_t vocabulary = 50265, hidden = 1024, encoder_layers = 12, decoder_layers = 12;
  std::int64_t heads = 16, inner = 4096, positions = 1024;
};

Bart read_bart(ConfigReader& config, const BartDefaults& defaults) {
  Bart bart;
  Sizes& sizes = bart.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, defaults.vocabulary, kVocabularyLimits);
  sizes.hidden = config.whole({"d_model", "hidden_size"}, defaults.hidden, kHiddenLimits);
  sizes.layers =
      config.whole({"encoder_layers", "num_hidden_layers"}, defaults.encoder_layers, kLayerLimits);
  sizes.heads =
      config.whole({"encoder_attention_heads", "num_attention_heads"}, defaults.heads, kHeadLimits);
  sizes.kv_heads = sizes.heads;
  sizes.head_dim =
      divided_heads(config, sizes.hidden, sizes.heads, "d_model", "encoder_attention_heads");
  sizes.max_sequence =
      config.whole({"max_position_embeddings"}, defaults.positions, kPositionLimits);
  sizes.tied = config.flag({"tie_word_embeddings"}, true);
  bart.decoder_layers = config.whole({"decoder_layers"}, defaults.decoder_layers, kLayerLimits);
  bart.decoder_heads = config.whole({"decoder_attention_heads"}, defaults.heads, kHeadLimits);
  static_cast<void>(divided_heads(config, sizes.hidden, bart.decoder_heads, "d_model",
                                  "decoder_attention_heads"));
  bart.encoder_inner = config.whole({"encoder_ffn_dim"}, defaults.inner, kWideLimits);
  bart.decoder_inner = config.whole({"decoder_ffn_dim"}, defaults.inner, kWideLimits);
  bart.activation = config.activation({"activation_function"}, "gelu");
  bart.dropout = config.probability({"dropout"}, 0.1);
  bart.attention_dropout = config.probability({"attention_dropout"}, 0.0);
  bart.activation_dropout = config.probability({"activation_dropout"}, 0.0);
  return bart;
}

// A half of a layer: the norm before or behind, and the residual sum.
template <class Inner>
TensorRef half(BlockBuilder& block, TensorRef x, const Bart& bart, const std::string& norm,
               const Inner& inner) {
  TensorRef h = bart.norms_before ? block.layer_norm(norm, x) : x;
  h = block.dropout(norm + ".dropout", inner(h), bart.dropout);
  h = block.add(norm + ".residual", x, h);
  return bart.norms_before ? h : block.layer_norm(norm, h);
}

struct AttentionPlan {
  std::string module;
  std::int64_t heads = 1;
  bool causal = false;
  TensorRef keys = {};  // what keys and values are projected from; none: the same as queries
  TensorRef mask = {};
};

TensorRef attention(BlockBuilder& block, TensorRef x, const Bart& bart, const AttentionPlan& plan) {
  const std::int64_t hidden = bart.sizes.hidden;
  const auto projected = [&](const char* part, TensorRef from) {
    const std::string name = plan.module + "." + part;
    return block.heads(name + "_heads", block.linear(name, from, hidden, {.bias = true}),
                       plan.heads);
  };
  const TensorRef source = plan.keys.index >= 0 ? plan.keys : x;
  const TensorRef q = projected("q_proj", x);
  const TensorRef k = projected("k_proj", source);
  const TensorRef v = projected("v_proj", source);
  const AttentionShape shape{.heads = plan.heads,
                             .kv_heads = plan.heads,
                             .head_dim = hidden / plan.heads,
                             .causal = plan.causal,
                             .dropout = bart.attention_dropout,
                             .padding_mask = !plan.causal,
                             .casts_probabilities = false,
                             .scales_queries = true};
  const TensorRef mixed = plan.causal
                              ? block.attention(plan.module, q, k, v, shape)
                              : block.masked_attention(plan.module, q, k, v, plan.mask, shape);
  return block.linear(plan.module + ".out_proj", mixed, hidden, {.bias = true});
}

TensorRef feed_forward(BlockBuilder& block, TensorRef x, const Bart& bart, std::int64_t inner) {
  TensorRef h = block.linear("fc1", x, inner, {.bias = true});
  h = block.activation("activation_fn", h, bart.activation);
  h = block.dropout("activation_fn.dropout", h, bart.activation_dropout);
  return block.linear("fc2", h, bart.sizes.hidden, {.bias = true});
}

Block encoder_layer(const Graph& graph, const Bart& bart) {
  BlockBuilder block(graph, "model.encoder.layers");
  TensorRef x = block.input(source_stream(graph));
  x = half(block, x, bart, "self_attn_layer_norm", [&](TensorRef h) {
    return attention(block, h, bart,
                     {.module = "self_attn", .heads = bart.sizes.heads, .mask = kSourcePadding});
  });
  return block.finish(half(block, x, bart, "final_layer_norm", [&](TensorRef h) {
    return feed_forward(block, h, bart, bart.encoder_inner);
  }));
}

Block decoder_layer(const Graph& graph, const Bart& bart) {
  BlockBuilder block(graph, "model.decoder.layers");
  TensorRef x = block.input(target_stream(graph));
  x = half(block, x, bart, "self_attn_layer_norm", [&](TensorRef h) {
    return attention(block, h, bart,
                     {.module = "self_attn", .heads = bart.decoder_heads, .causal = true});
  });
  x = half(block, x, bart, "encoder_attn_layer_norm", [&](TensorRef h) {
    return attention(block, h, bart,
                     {.module = "encoder_attn",
                      .heads = bart.decoder_heads,
                      .keys = kEncoderStates,
                      .mask = kCrossPadding});
  });
  return block.finish(half(block, x, bart, "final_layer_norm", [&](TensorRef h) {
    return feed_forward(block, h, bart, bart.decoder_inner);
  }));
}

// Tokens times a constant, 1 where the model does not scale them, and positions.
TensorRef embedded(BlockBuilder& block, const Graph& graph, const Bart& bart,
                   const std::string& stack, TensorRef ids, const std::string& tied_to) {
  const std::int64_t tokens = block.shape(ids).at(1);
  const std::string name = stack + ".embed_tokens";
  TensorRef x = block.embedding(name, ids, graph.vocabulary, graph.hidden, tied_to);
  x = block.scale(name + ".scale", x, 1.0);
  // BartLearnedPositionalEmbedding adds its offset to positions of each sample.
  const bool offset_rows = bart.positions == Positions::learned_with_offset;
  const std::int64_t offset = offset_rows ? kPositionOffset : 0;
  const std::int64_t samples = offset_rows ? graph.batch : 1;
  const TensorRef positions = block.position_embedding(
      stack + ".embed_positions", bart.sizes.max_sequence + offset, graph.hidden, samples, tokens);
  if (bart.positions == Positions::sines) block.freeze_weight();
  x = block.add(stack + ".add_positions", x, positions);
  if (bart.norms_embedding) x = block.layer_norm(stack + ".layernorm_embedding", x);
  return block.dropout(stack + ".dropout", x, bart.dropout);
}

TensorRef stack_end(BlockBuilder& block, TensorRef x, const Bart& bart, const std::string& stack) {
  return bart.norms_before ? block.layer_norm(stack + ".layer_norm", x) : x;
}

constexpr const char* kTokens = "model.encoder.embed_tokens.weight";

void add_start(Graph& graph, const Bart& bart) {
  BlockBuilder block(graph, "embed");
  block.padding_mask("model.encoder.attention_mask", kSourceMask, kSourcePadding);
  graph.segments.push_back(
      {1, {block.finish(embedded(block, graph, bart, "model.encoder", kSourceIds, ""))}});
}

// A stack that ends without a norm hands its stream on as it is: a view of it is what all read.
void add_middle(Graph& graph, const Bart& bart) {
  BlockBuilder block(graph, "middle");
  const TensorRef x = block.input(source_stream(graph));
  if (bart.norms_before) {
    block.layer_norm("model.encoder.layer_norm", x);
  } else {
    block.view("model.encoder.last_hidden_state", x, source_stream(graph));
  }
  block.publish(kEncoderStates);
  block.padding_mask("model.decoder.encoder_attention_mask", kSourceMask, kCrossPadding);
  graph.segments.push_back(
      {1, {block.finish(embedded(block, graph, bart, "model.decoder", kTargetIds, kTokens))}});
}

void add_lm_head(Graph& graph, const Bart& bart) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.input(target_stream(graph));
  x = stack_end(block, x, bart, "model.decoder");
  x = block.linear("lm_head", x, graph.vocabulary, {.tied_to = bart.sizes.tied ? kTokens : ""});
  x = block.add_buffer("final_logits_bias", x);
  graph.segments.push_back(
      {1, {block.finish(block.loss(OperatorKind::masked_lm_loss, {x, kTargetLabels}, "loss"))}});
}

Graph finish_bart(ConfigReader& config, const SampleShape& sample, const Bart& bart) {
  Graph graph = start_encoder_decoder(config, bart.sizes, sample);
  graph.layers += bart.decoder_layers;
  check_positions(config, graph, bart.sizes.max_sequence, "max_position_embeddings");
  // _prepare_4d_attention_mask writes a row per query.
  graph.shared[static_cast<std::size_t>(kSourcePadding.index)].shape = {
      graph.batch, 1, graph.sequence, graph.sequence};
  graph.shared.push_back({"encoder_attention_mask",
                          {graph.batch, 1, graph.decoder_sequence, graph.sequence},
                          ElementKind::real});
  add_start(graph, bart);
  graph.segments.push_back({bart.sizes.layers, {encoder_layer(graph, bart)}});
  add_middle(graph, bart);
  graph.segments.push_back({bart.decoder_layers, {decoder_layer(graph, bart)}});
  add_lm_head(graph, bart);
  return graph;
}

}  // namespace

Graph build_bart(ConfigReader& config, const SampleShape& sample) {
  Bart bart = read_bart(config, {});
  bart.positions = Positions::learned_with_offset;
  bart.norms_embedding = true;
  return finish_bart(config, sample, bart);
}

Graph build_mbart(ConfigReader& config, const SampleShape& sample) {
  Bart bart = read_bart(config, {});
  bart.positions = Positions::learned_with_offset;
  bart.norms_embedding = true;
  bart.norms_before = true;
  return finish_bart(config, sample, bart);
}

Graph build_marian(ConfigReader& config, const SampleShape& sample) {
  Bart bart = read_bart(config, {.vocabulary = 58101});
  bart.positions = Positions::sines;
  if (!config.flag({"share_encoder_decoder_embeddings"}, true)) {
    config.reject("share_encoder_decoder_embeddings", "false", "true");
  }
  return finish_bart(config, sample, bart);
}

Graph build_pegasus(ConfigReader& config, const SampleShape& sample) {
  Bart bart = read_bart(config, {});
  bart.positions = Positions::sines;
  bart.norms_before = true;
  return finish_bart(config, sample, bart);
}

Graph build_blenderbot(ConfigReader& config, const SampleShape& sample) {
  Bart bart = read_bart(config, {.vocabulary = 8008,
                                 .hidden = 2560,
                                 .encoder_layers = 2,
                                 .decoder_layers = 24,
                                 .heads = 32,
                                 .inner = 10240,
                                 .positions = 128});
  bart.norms_before = true;
  return finish_bart(config, sample, bart);
}

}  // namespace steelyard::model
