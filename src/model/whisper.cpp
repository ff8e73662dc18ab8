// Whisper (transformers: modeling_whisper.py): two convolutions over a log-mel spectrogram of 30 s,
// an encoder with fixed sines for positions and a decoder with learned ones.
#include <fmt/format.h>

#include "model/encoder_decoder.h"
#include "model/speech_parts.h"

namespace steelyard::model {

namespace {

constexpr std::int64_t kHop = 160;  // samples of the waveform between two columns (10 ms)
constexpr Limits kMelLimits{1, 65'536};

constexpr TensorRef kSpectrogram{true, 0};    // [B,mels,columns]
constexpr TensorRef kWritten{true, 1};        // [B,T]
constexpr TensorRef kWrittenLabels{true, 2};  // [B,T]
constexpr TensorRef kHeard{true, 3};          // [B,S,H]

struct Whisper {
  Sizes sizes;
  std::int64_t mels = 80, sources = 1500, targets = 448;
  std::int64_t decoder_layers = 4, decoder_heads = 6, encoder_inner = 1536, decoder_inner = 1536;
  ActivationKind activation = ActivationKind::gelu;
  double dropout = 0.0, attention_dropout = 0.0, activation_dropout = 0.0;
};

Whisper read_whisper(ConfigReader& config) {
  Whisper net;
  Sizes& sizes = net.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, 51865, kVocabularyLimits);
  sizes.hidden = config.whole({"d_model", "hidden_size"}, 384, kHiddenLimits);
  sizes.layers = config.whole({"encoder_layers", "num_hidden_layers"}, 4, kLayerLimits);
  sizes.heads = config.whole({"encoder_attention_heads", "num_attention_heads"}, 6, kHeadLimits);
  sizes.kv_heads = sizes.heads;
  sizes.head_dim =
      divided_heads(config, sizes.hidden, sizes.heads, "d_model", "encoder_attention_heads");
  sizes.tied = config.flag({"tie_word_embeddings"}, true);
  net.mels = config.whole({"num_mel_bins"}, 80, kMelLimits);
  net.sources = config.whole({"max_source_positions"}, 1500, kPositionLimits);
  net.targets = config.whole({"max_target_positions"}, 448, kPositionLimits);
  net.decoder_layers = config.whole({"decoder_layers"}, 4, kLayerLimits);
  net.decoder_heads = config.whole({"decoder_attention_heads"}, 6, kHeadLimits);
  static_cast<void>(
      divided_heads(config, sizes.hidden, net.decoder_heads, "d_model", "decoder_attention_heads"));
  net.encoder_inner = config.whole({"encoder_ffn_dim"}, 1536, kWideLimits);
  net.decoder_inner = config.whole({"decoder_ffn_dim"}, 1536, kWideLimits);
  net.activation = config.activation({"activation_function"}, "gelu");
  net.dropout = config.probability({"dropout"}, 0.0);
  net.attention_dropout = config.probability({"attention_dropout"}, 0.0);
  net.activation_dropout = config.probability({"activation_dropout"}, 0.0);
  return net;
}

// The extractor pads each sound to the encoder's length (feature_extraction_whisper.py), which the
// model insists on: how long sounds are changes what is stored, not what is computed.
Graph start(ConfigReader& config, const Whisper& net, const SampleShape& sample) {
  Graph graph;
  graph.name = config.name();
  graph.batch = sample.batch;
  const std::int64_t columns = checked_multiply(2, net.sources);
  const std::int64_t longest = checked_multiply(columns, kHop);
  graph.audio_samples = audio_samples_of(sample, longest);
  if (graph.audio_samples > longest) {
    config.reject(
        "max_source_positions", fmt::format("{}", net.sources),
        fmt::format("{} or more for {} s of sound",
                    (graph.audio_samples + 2 * kHop - 1) / (2 * kHop),
                    static_cast<double>(graph.audio_samples) / static_cast<double>(kSamplingRate)),
        "cut longer sounds: train.audio_seconds");
  }
  graph.sequence = net.sources;
  graph.decoder_sequence = sample.decoder_sequence > 0 ? sample.decoder_sequence : net.targets;
  if (graph.decoder_sequence > net.targets) {
    config.reject("max_target_positions", fmt::format("{}", net.targets),
                  fmt::format("at least {}", graph.decoder_sequence),
                  "lower train.decoder_sequence_length");
  }
  graph.vocabulary = net.sizes.vocabulary;
  graph.hidden = net.sizes.hidden;
  graph.layers = net.sizes.layers + net.decoder_layers;
  const Shape written = {graph.batch, graph.decoder_sequence};
  // The model shifts the labels into what the decoder reads.
  graph.batch_tensors = {{"input_features", {graph.batch, net.mels, columns}, ElementKind::pixels},
                         {"decoder_input_ids", written, ElementKind::token_ids},
                         {"labels", written, ElementKind::token_ids}};
  graph.shared = graph.batch_tensors;
  graph.shared.push_back({"encoder_hidden_states", source_stream(graph), ElementKind::real});
  return graph;
}

struct AttentionPlan {
  std::string module;
  std::int64_t heads = 1;
  bool causal = false;
  TensorRef keys = {};  // none: the same as queries
};

TensorRef attention(BlockBuilder& block, TensorRef x, const Whisper& net,
                    const AttentionPlan& plan) {
  const std::int64_t hidden = net.sizes.hidden;
  // .view(...).transpose(1, 2).contiguous()
  const auto projected = [&](const char* part, TensorRef from, bool bias) {
    const std::string name = plan.module + "." + part;
    const TensorRef all = block.linear(name, from, hidden, {.bias = bias});
    return block.contiguous(name + "_contiguous", block.heads(name + "_heads", all, plan.heads));
  };
  const TensorRef source = plan.keys.index >= 0 ? plan.keys : x;
  const TensorRef q = projected("q_proj", x, true);
  const TensorRef k = projected("k_proj", source, false);
  const TensorRef v = projected("v_proj", source, true);
  const AttentionShape shape{.heads = plan.heads,
                             .kv_heads = plan.heads,
                             .head_dim = hidden / plan.heads,
                             .causal = plan.causal,
                             .dropout = net.attention_dropout,
                             .casts_probabilities = false,
                             .scales_queries = true};
  const TensorRef mixed = block.attention(plan.module, q, k, v, shape);
  return block.linear(plan.module + ".out_proj", mixed, hidden, {.bias = true});
}

// x + dropout(inner(norm(x))).
template <class Inner>
TensorRef half(BlockBuilder& block, TensorRef x, const Whisper& net, const std::string& norm,
               const Inner& inner) {
  TensorRef h = inner(block.layer_norm(norm, x));
  h = block.dropout(norm + ".dropout", h, net.dropout);
  return block.add(norm + ".residual", x, h);
}

TensorRef feed_forward(BlockBuilder& block, TensorRef x, const Whisper& net, std::int64_t inner) {
  TensorRef h = block.linear("fc1", x, inner, {.bias = true});
  h = block.activation("activation_fn", h, net.activation);
  h = block.dropout("activation_fn.dropout", h, net.activation_dropout);
  return block.linear("fc2", h, net.sizes.hidden, {.bias = true});
}

Block encoder_layer(const Graph& graph, const Whisper& net) {
  BlockBuilder block(graph, "model.encoder.layers");
  TensorRef x = block.input(source_stream(graph));
  x = half(block, x, net, "self_attn_layer_norm", [&](TensorRef h) {
    return attention(block, h, net, {.module = "self_attn", .heads = net.sizes.heads});
  });
  return block.finish(half(block, x, net, "final_layer_norm", [&](TensorRef h) {
    return feed_forward(block, h, net, net.encoder_inner);
  }));
}

Block decoder_layer(const Graph& graph, const Whisper& net) {
  BlockBuilder block(graph, "model.decoder.layers");
  TensorRef x = block.input(target_stream(graph));
  x = half(block, x, net, "self_attn_layer_norm", [&](TensorRef h) {
    return attention(block, h, net,
                     {.module = "self_attn", .heads = net.decoder_heads, .causal = true});
  });
  x = half(block, x, net, "encoder_attn_layer_norm", [&](TensorRef h) {
    return attention(block, h, net,
                     {.module = "encoder_attn", .heads = net.decoder_heads, .keys = kHeard});
  });
  return block.finish(half(block, x, net, "final_layer_norm", [&](TensorRef h) {
    return feed_forward(block, h, net, net.decoder_inner);
  }));
}

void add_start(Graph& graph, const Whisper& net) {
  BlockBuilder block(graph, "embed");
  const std::string root = "model.encoder.";
  TensorRef x = block.conv_over_time(root + "conv1", kSpectrogram, graph.hidden,
                                     {.kernel = 3, .padding = 1, .bias = true});
  x = block.activation(root + "conv1.gelu", x, ActivationKind::gelu);
  x = block.conv_over_time(root + "conv2", x, graph.hidden,
                           {.kernel = 3, .stride = 2, .padding = 1, .bias = true});
  x = block.activation(root + "conv2.gelu", x, ActivationKind::gelu);
  x = block.view(root + "permute", x, source_stream(graph), true);
  x = block.add_weight(root + "embed_positions.weight", x, {graph.sequence, graph.hidden});
  block.freeze_weight();
  x = block.dropout(root + "dropout", x, net.dropout);
  graph.segments.push_back({1, {block.finish(x)}});
}

constexpr const char* kTokens = "model.decoder.embed_tokens.weight";

void add_middle(Graph& graph, const Whisper& net) {
  BlockBuilder block(graph, "middle");
  block.layer_norm("model.encoder.layer_norm", block.input(source_stream(graph)));
  block.publish(kHeard);
  const std::string root = "model.decoder.";
  TensorRef x = block.embedding(root + "embed_tokens", kWritten, graph.vocabulary, graph.hidden);
  // Positions of each sample are looked up by index.
  const TensorRef positions = block.position_embedding(
      root + "embed_positions", net.targets, graph.hidden, graph.batch, graph.decoder_sequence);
  x = block.add(root + "add_positions", x, positions);
  x = block.dropout(root + "dropout", x, net.dropout);
  graph.segments.push_back({1, {block.finish(x)}});
}

void add_end(Graph& graph, const Whisper& net) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.layer_norm("model.decoder.layer_norm", block.input(target_stream(graph)));
  x = block.linear("proj_out", x, graph.vocabulary, {.tied_to = net.sizes.tied ? kTokens : ""});
  graph.segments.push_back(
      {1, {block.finish(block.loss(OperatorKind::masked_lm_loss, {x, kWrittenLabels}, "loss"))}});
}

}  // namespace

Graph build_whisper(ConfigReader& config, const SampleShape& sample) {
  const Whisper net = read_whisper(config);
  Graph graph = start(config, net, sample);
  add_start(graph, net);
  graph.segments.push_back({net.sizes.layers, {encoder_layer(graph, net)}});
  add_middle(graph, net);
  graph.segments.push_back({net.decoder_layers, {decoder_layer(graph, net)}});
  add_end(graph, net);
  return graph;
}

}  // namespace steelyard::model
