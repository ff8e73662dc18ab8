// wav2vec 2.0 and HuBERT (transformers: modeling_wav2vec2.py, modeling_hubert.py): convolutions
// over the raw waveform, one over time that tells positions, a transformer's encoder and a CTC or
// classification head.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "model/image_parts.h"
#include "model/speech_parts.h"

namespace steelyard::model {

namespace {

// The longest sample of fairseq's training configurations (wav2vec2_base_librivox.yaml:
// max_sample_size), 15.6 s; the model itself has no limit.
constexpr std::int64_t kUsualSamples = 250'000;
// Characters that are read in a second: LibriSpeech's 9.4 million words in 961 hours, 5.4 letters
// and spaces each.
constexpr double kCharactersPerSecond = 14.7;
constexpr Limits kConvLimits{1, 65'536};

constexpr TensorRef kWaveform{true, 0};      // [B,samples]
constexpr TensorRef kLabels{true, 1};        // [B,L], or [B]
constexpr TensorRef kWaveformMask{true, 2};  // [B,samples]
constexpr TensorRef kPadding{true, 3};       // [B,1,1,T], what is added to scores
constexpr TensorRef kFrameMask{true, 4};     // [B,T]

enum class Head { ctc, classification };

struct Listener {
  Sizes sizes;
  std::string root;
  std::vector<std::int64_t> channels, kernels, strides;
  bool conv_bias = false;
  bool norms_each = false;    // every convolution by a layer norm; else the first by a group norm
  bool norms_before = false;  // do_stable_layer_norm
  bool norms_projection = true;
  std::int64_t inner = 3072, position_kernel = 128, position_groups = 16;
  std::int64_t labels = 2, pooled = 256;
  ActivationKind conv_activation = ActivationKind::gelu, activation = ActivationKind::gelu;
  double hidden_dropout = 0.1, attention_dropout = 0.1, activation_dropout = 0.1;
  double projection_dropout = 0.0, final_dropout = 0.0;
  double mask_time = 0.0, mask_features = 0.0;  // shares that SpecAugment writes over
  bool augments = true;
  Head head = Head::ctc;

  // A feature extractor whose convolutions norm each frame by itself is used with a mask of what is
  // padded (feature_extraction_wav2vec2.py: return_attention_mask).
  [[nodiscard]] bool reads_mask() const { return norms_each; }
};

Head head_of(ConfigReader& config) {
  const std::vector<std::string> classes = config.text_list({"architectures"});
  if (classes.empty() || classes.front().ends_with("ForCTC")) return Head::ctc;
  if (classes.front().ends_with("Model")) return Head::ctc;  // without a head: the usual one
  if (classes.front().ends_with("ForSequenceClassification")) return Head::classification;
  config.reject("architectures", "\"" + classes.front() + "\"",
                "a class that ends in ForCTC or ForSequenceClassification",
                "a fine-tuning that starts from the file names its own class: model.set = { "
                "architectures = [\"...ForCTC\"] }");
  return Head::ctc;
}

void read_convolutions(ConfigReader& config, Listener& net) {
  net.channels = config.whole_list({"conv_dim"}, {512, 512, 512, 512, 512, 512, 512}, kConvLimits);
  net.kernels = config.whole_list({"conv_kernel"}, {10, 3, 3, 3, 3, 2, 2}, kConvLimits);
  net.strides = config.whole_list({"conv_stride"}, {5, 2, 2, 2, 2, 2, 2}, kConvLimits);
  const std::size_t count = net.channels.size();
  if (count == 0 || net.kernels.size() != count || net.strides.size() != count) {
    config.reject("conv_dim", fmt::format("{} numbers", count),
                  "as many as conv_kernel and conv_stride have, at least one");
    net.channels = net.kernels = net.strides = {1};
  }
  net.conv_bias = config.flag({"conv_bias"}, false);
  net.norms_each = config.choice({"feat_extract_norm"}, "group", {"group", "layer"}) == "layer";
  net.conv_activation = config.activation({"feat_extract_activation"}, "gelu");
}

// Parts of the code that no builder here writes down.
void refuse_other_code(ConfigReader& config) {
  for (const char* key : {"add_adapter", "use_weighted_layer_sum", "conv_pos_batch_norm"}) {
    if (config.flag({key}, false)) config.reject(key, "true", "false");
  }
  if (config.has("adapter_attn_dim")) config.reject("adapter_attn_dim", "a number", "null");
}

Listener read_listener(ConfigReader& config, std::string root) {
  Listener net;
  net.root = std::move(root);
  net.sizes = read_sizes(config, {.vocabulary = 32,
                                  .hidden = 768,
                                  .layers = 12,
                                  .heads = 12,
                                  .kv_heads = {},
                                  .head_dim = {},
                                  .max_sequence = 1,
                                  .tied = false});
  net.sizes.max_sequence = 0;
  read_convolutions(config, net);
  net.norms_before = config.flag({"do_stable_layer_norm"}, false);
  net.inner = config.whole({"intermediate_size"}, 3072, kWideLimits);
  net.position_kernel = config.whole({"num_conv_pos_embeddings"}, 128, kConvLimits);
  net.position_groups = config.whole({"num_conv_pos_embedding_groups"}, 16, kConvLimits);
  net.labels = labels_of(config);
  net.pooled = config.whole({"classifier_proj_size"}, 256, kHiddenLimits);
  net.activation = config.activation({"hidden_act"}, "gelu");
  net.hidden_dropout = config.probability({"hidden_dropout"}, 0.1);
  net.attention_dropout = config.probability({"attention_dropout"}, 0.1);
  net.activation_dropout = config.probability({"activation_dropout"}, 0.1);
  net.projection_dropout = config.probability({"feat_proj_dropout"}, 0.0);
  net.final_dropout = config.probability({"final_dropout"}, 0.1);
  net.augments = config.flag({"apply_spec_augment"}, true);
  net.mask_time = config.probability({"mask_time_prob"}, 0.05);
  net.mask_features = config.probability({"mask_feature_prob"}, 0.0);
  net.head = head_of(config);
  refuse_other_code(config);
  if (net.sizes.hidden % net.position_groups != 0) {
    config.reject("num_conv_pos_embedding_groups", std::to_string(net.position_groups),
                  "a divisor of hidden_size");
    net.position_groups = 1;
  }
  return net;
}

ConvOptions window_of(const Listener& net, std::size_t layer) {
  return {.kernel = net.kernels[layer], .stride = net.strides[layer], .bias = net.conv_bias};
}

std::int64_t frames_of(const Listener& net, std::int64_t samples) {
  for (std::size_t i = 0; i < net.channels.size(); ++i) {
    samples = windows_of(samples, window_of(net, i));
  }
  return samples;
}

Graph start(ConfigReader& config, const Listener& net, const SampleShape& sample) {
  Graph graph;
  graph.name = config.name();
  graph.batch = sample.batch;
  graph.audio_samples = audio_samples_of(sample, kUsualSamples);
  graph.sequence = frames_of(net, graph.audio_samples);
  if (graph.sequence < 1) {
    config.reject("conv_kernel", fmt::format("{} samples of sound", graph.audio_samples),
                  "sounds that fill the windows at least once", "raise train.audio_seconds");
    graph.sequence = 1;
  }
  graph.vocabulary = net.head == Head::ctc ? net.sizes.vocabulary : net.labels;
  graph.hidden = net.sizes.hidden;
  graph.layers = net.sizes.layers;
  Shape labels = {graph.batch};
  if (net.head == Head::ctc) {
    const double spoken = kCharactersPerSecond * static_cast<double>(graph.audio_samples) /
                          static_cast<double>(kSamplingRate);
    graph.decoder_sequence = sample.decoder_sequence > 0
                                 ? sample.decoder_sequence
                                 : std::max<std::int64_t>(1, static_cast<std::int64_t>(spoken));
    labels.push_back(graph.decoder_sequence);
  }
  // The mask has 32 bits (feature_extraction_wav2vec2.py), as many as the waveform.
  const Shape waveform = {graph.batch, graph.audio_samples};
  const Shape mask = net.reads_mask() ? waveform : Shape{0};
  graph.shared = {{"input_values", waveform, ElementKind::pixels},
                  {"labels", labels, ElementKind::token_ids},
                  {"attention_mask", mask, ElementKind::pixels},
                  {"padding_mask", {graph.batch, 1, 1, graph.sequence}, ElementKind::real},
                  {"frame_mask", {graph.batch, graph.sequence}, ElementKind::boolean}};
  graph.batch_tensors = {graph.shared[0], graph.shared[1]};
  if (net.reads_mask()) graph.batch_tensors.push_back(graph.shared[2]);
  return graph;
}

// [B,C,T] -> [B,T,C] and back, a view each.
TensorRef turned(BlockBuilder& block, const std::string& name, TensorRef x) {
  const Shape shape = block.shape(x);
  return block.view(name, x, {shape.at(0), shape.at(2), shape.at(1)}, true);
}

TensorRef convolutions(BlockBuilder& block, const Graph& graph, const Listener& net) {
  TensorRef x = block.view("input_values", kWaveform, {graph.batch, 1, graph.audio_samples});
  for (std::size_t i = 0; i < net.channels.size(); ++i) {
    const std::string layer = fmt::format("{}.feature_extractor.conv_layers.{}", net.root, i);
    x = block.conv_over_time(layer + ".conv", x, net.channels[i], window_of(net, i));
    if (net.norms_each) {
      x = block.layer_norm(layer + ".layer_norm", turned(block, layer + ".transpose", x));
      x = turned(block, layer + ".transpose_back", x);
    } else if (i == 0) {
      x = block.group_norm(layer + ".layer_norm", x, net.channels[i]);
    }
    x = block.activation(layer + ".activation", x, net.conv_activation);
  }
  return turned(block, net.root + ".transpose", x);
}

// Spans of a share of the frames are written over with one learned vector, of the features with
// zeros: SpecAugment, in training.
TensorRef augmented(BlockBuilder& block, TensorRef x, const Listener& net) {
  const std::string embedding = net.root + ".masked_spec_embed";
  if (net.mask_time > 0.0 && net.augments) {
    x = block.masked_tokens(net.root + ".mask_time", x, kFrameMask, net.mask_time, embedding);
  } else if (net.mask_time > 0.0 || net.mask_features > 0.0) {
    block.plain_weight(embedding, {net.sizes.hidden}, WeightRole::other);
  }
  if (net.mask_features > 0.0 && net.augments) {
    x = block.masked_tokens(net.root + ".mask_features", x, kFrameMask, net.mask_features, "");
  }
  return x;
}

// x + gelu(the convolution over its frames), one frame cut off behind an even window.
TensorRef with_positions(BlockBuilder& block, const Graph& graph, TensorRef x,
                         const Listener& net) {
  const std::string name = net.root + ".encoder.pos_conv_embed";
  TensorRef h = turned(block, name + ".transpose", x);
  h = block.normed_conv(name + ".conv", h, graph.hidden,
                        {.kernel = net.position_kernel,
                         .padding = net.position_kernel / 2,
                         .groups = net.position_groups,
                         .bias = true});
  if (net.position_kernel % 2 == 0) {
    h = block.cut(name + ".padding", h, {graph.batch, graph.hidden, graph.sequence});
  }
  h = block.activation(name + ".activation", h, net.conv_activation);
  return block.add(net.root + ".encoder.add_positions", x,
                   turned(block, name + ".transpose_back", h));
}

void add_start(Graph& graph, const Listener& net) {
  BlockBuilder block(graph, "embed");
  TensorRef x = convolutions(block, graph, net);
  const std::string projection = net.root + ".feature_projection";
  if (net.norms_projection) x = block.layer_norm(projection + ".layer_norm", x);
  x = block.linear(projection + ".projection", x, graph.hidden, {.bias = true});
  x = block.dropout(projection + ".dropout", x, net.projection_dropout);
  x = augmented(block, x, net);
  if (net.reads_mask()) {
    const std::string name = net.root + ".encoder.attention_mask";
    x = net.norms_before ? block.tokens_times_mask(name, x, kFrameMask)
                         : block.masked_tokens(name, x, kFrameMask, 0.0, "");
    block.padding_mask(name + ".extended", kFrameMask, kPadding);
  }
  x = with_positions(block, graph, x, net);
  if (!net.norms_before) x = block.layer_norm(net.root + ".encoder.layer_norm", x);
  x = block.dropout(net.root + ".encoder.dropout", x, net.hidden_dropout);
  graph.segments.push_back({1, {block.finish(x)}});
}

TensorRef attention(BlockBuilder& block, TensorRef x, const Listener& net) {
  const Sizes& sizes = net.sizes;
  const auto projected = [&](const char* part) {
    const std::string name = fmt::format("attention.{}_proj", part);
    return block.heads(name + "_heads", block.linear(name, x, sizes.hidden, {.bias = true}),
                       sizes.heads);
  };
  const TensorRef q = projected("q");
  const TensorRef k = projected("k");
  const TensorRef v = projected("v");
  const AttentionShape shape{.heads = sizes.heads,
                             .kv_heads = sizes.heads,
                             .head_dim = sizes.head_dim,
                             .causal = false,
                             .dropout = net.attention_dropout,
                             .padding_mask = net.reads_mask(),
                             .casts_probabilities = false,
                             .scales_queries = true};
  const TensorRef mixed = net.reads_mask()
                              ? block.masked_attention("attention", q, k, v, kPadding, shape)
                              : block.attention("attention", q, k, v, shape);
  const TensorRef h = block.linear("attention.out_proj", mixed, sizes.hidden, {.bias = true});
  return block.dropout("dropout", h, net.hidden_dropout);
}

TensorRef feed_forward(BlockBuilder& block, TensorRef x, const Listener& net) {
  TensorRef h = block.linear("feed_forward.intermediate_dense", x, net.inner, {.bias = true});
  h = block.activation("feed_forward.intermediate_act_fn", h, net.activation);
  h = block.dropout("feed_forward.intermediate_dropout", h, net.activation_dropout);
  h = block.linear("feed_forward.output_dense", h, net.sizes.hidden, {.bias = true});
  return block.dropout("feed_forward.output_dropout", h, net.hidden_dropout);
}

Block layer_of(const Graph& graph, const Listener& net) {
  BlockBuilder block(graph, net.root + ".encoder.layers");
  TensorRef x = block.input({graph.batch, graph.sequence, graph.hidden});
  if (net.norms_before) {
    const TensorRef h = attention(block, block.layer_norm("layer_norm", x), net);
    x = block.add("residual", x, h);
    const TensorRef f = feed_forward(block, block.layer_norm("final_layer_norm", x), net);
    return block.finish(block.add("feed_forward.residual", x, f));
  }
  x = block.layer_norm("layer_norm", block.add("residual", x, attention(block, x, net)));
  const TensorRef f = feed_forward(block, x, net);
  return block.finish(
      block.layer_norm("final_layer_norm", block.add("feed_forward.residual", x, f)));
}

void add_head(Graph& graph, const Listener& net) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, graph.sequence, graph.hidden});
  if (net.norms_before) x = block.layer_norm(net.root + ".encoder.layer_norm", x);
  TensorRef loss;
  if (net.head == Head::ctc) {
    x = block.dropout("dropout", x, net.final_dropout);
    x = block.linear("lm_head", x, graph.vocabulary, {.bias = true});
    loss = block.loss(OperatorKind::ctc_loss, {x, kLabels}, "loss");
  } else {
    x = block.linear("projector", x, net.pooled, {.bias = true});
    x = block.global_average_pool("pooled_output", x);
    x = block.linear("classifier", x, net.labels, {.bias = true});
    loss = block.loss(OperatorKind::classification_loss, {x, kLabels}, "loss");
  }
  graph.segments.push_back({1, {block.finish(loss)}});
}

Graph finish(ConfigReader& config, const SampleShape& sample, const Listener& net) {
  Graph graph = start(config, net, sample);
  add_start(graph, net);
  graph.segments.push_back({net.sizes.layers, {layer_of(graph, net)}});
  add_head(graph, net);
  return graph;
}

}  // namespace

Graph build_wav2vec2(ConfigReader& config, const SampleShape& sample) {
  return finish(config, sample, read_listener(config, "wav2vec2"));
}

Graph build_hubert(ConfigReader& config, const SampleShape& sample) {
  Listener net = read_listener(config, "hubert");
  net.norms_projection = config.flag({"feat_proj_layer_norm"}, true);
  return finish(config, sample, net);
}

}  // namespace steelyard::model
