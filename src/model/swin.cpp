// Swin and its second version (transformers 4.57: modeling_swin.py, modeling_swinv2.py): attention
// inside of windows of the picture, shifted in every other layer, with a learned bias by distance;
// between stages four neighbours become one. The second compares queries and keys by their angle,
// computes the bias by a small network, and norms behind each half. Their code has no fused
// attention.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "model/patch_layers.h"
#include "model/vision_family.h"

namespace steelyard::model {

namespace {

constexpr int kShifted = 1, kDrops = 2;

struct Swin {
  Picture picture;
  std::int64_t patch = 4, width = 96, window = 7, classes = 2;
  std::vector<std::int64_t> depths, heads;
  double ratio = 4.0;
  ActivationKind activation = ActivationKind::gelu;
  bool qkv_bias = true, absolute = false;
  bool second = false;
  std::string root = "swin";
  double hidden_dropout = 0.0, attention_dropout = 0.0, drop_path = 0.1;
};

struct Stage {
  std::string name;
  TensorRef places;  // swinv2: of its distances, a buffer
  std::int64_t rows = 0, columns = 0, width = 0, heads = 1;
  [[nodiscard]] std::int64_t tokens() const { return rows * columns; }
};

std::int64_t padded(std::int64_t size, std::int64_t step) {
  return (size + step - 1) / step * step;
}

TensorRef attention(BlockBuilder& block, TensorRef x, const Swin& net, const Stage& stage,
                    bool shifted) {
  const std::string module = "attention.self";
  const LinearOptions biased{.bias = net.qkv_bias};
  const auto [q, k, v] = add_projections(block, module, x, stage.heads, biased, biased);
  const std::int64_t reach = 2 * net.window - 1;
  const TensorRef bias = block.window_bias(module + ".relative_position_bias", reach * reach,
                                           block.shape(x).at(1), stage.heads);
  return block.masked_attention(module, q, k, v, bias,
                                {.heads = stage.heads,
                                 .kv_heads = stage.heads,
                                 .head_dim = stage.width / stage.heads,
                                 .causal = false,
                                 .dropout = net.attention_dropout,
                                 .padding_mask = shifted,
                                 .casts_probabilities = false,
                                 .always_eager = true,
                                 .bias = true});
}

// Swinv2SelfAttention: 16 * sigmoid of what a network makes of each distance.
TensorRef bias_of_distances(BlockBuilder& block, const Swin& net, const Stage& stage,
                            std::int64_t tokens) {
  constexpr std::int64_t kInner = 512;
  const std::string module = "attention.self.continuous_position_bias_mlp";
  const std::int64_t reach = 2 * std::min({net.window, stage.rows, stage.columns}) - 1;
  TensorRef x = block.linear(module + ".0", stage.places, kInner, {.bias = true});
  x = block.activation_in_place(module + ".1", x, ActivationKind::relu);
  x = block.linear(module + ".2", x, stage.heads);
  x = block.view(module + ".rows", x, {1, reach * reach, stage.heads});
  x = block.gather_tokens(module + ".of_pairs", x, {tokens, tokens, stage.heads});
  x = block.view(module + ".turn", x, {1, stage.heads, tokens, tokens}, true);
  x = block.contiguous(module + ".contiguous", x);
  x = block.activation(module + ".sigmoid", x, ActivationKind::sigmoid);
  return block.scale(module + ".scale", x, 16.0);
}

// a [n,M,K] times b [n,K,N].
TensorRef product(BlockBuilder& block, const std::string& name, TensorRef a, TensorRef b,
                  Shape out) {
  const TensorRef y = block.view(name, a, std::move(out));
  block.last().kind = OperatorKind::matmul;
  block.last().inputs.push_back(b);
  return y;
}

// torch.nn.functional.normalize: x / x.norm(dim=-1, keepdim=True).clamp_min(eps).
TensorRef normalized(BlockBuilder& block, const std::string& name, TensorRef x) {
  const Shape whole = block.shape(x);
  Shape rows = whole;
  rows.back() = 1;
  TensorRef length = block.view(name + ".norm", x, std::move(rows));
  block.last().kind = OperatorKind::reduce;
  block.last().saves = Saves::both;
  block.last().wide = true;
  length = block.clamp(name + ".clamp_min", length);
  const TensorRef y = block.view(name, x, whole);
  block.last().kind = OperatorKind::binary;
  block.last().arithmetic = ArithmeticKind::divide;
  block.last().inputs.push_back(length);
  return y;
}

// The cosine of queries and keys times a learned scale of each head.
TensorRef cosine_attention(BlockBuilder& block, TensorRef x, const Swin& net, const Stage& stage,
                           bool shifted) {
  const std::string module = "attention.self";
  const std::int64_t windows = block.shape(x).at(0);
  const std::int64_t tokens = block.shape(x).at(1);
  const std::int64_t width = stage.width / stage.heads;
  const auto [q, k, v] = add_projections(block, module, x, stage.heads, {.bias = net.qkv_bias}, {});
  const auto unit = [&](const std::string& name, TensorRef y) {
    return block.contiguous(name + ".rows", normalized(block, name, y));
  };
  const TensorRef unit_q = unit(module + ".normalize_query", q);
  TensorRef unit_k = unit(module + ".normalize_key", k);
  unit_k = block.view(module + ".key_columns", unit_k, {windows, stage.heads, width, tokens});
  const Shape pairs = {windows, stage.heads, tokens, tokens};
  TensorRef scores = product(block, module + ".scores", unit_q, unit_k, pairs);
  TensorRef scale =
      block.parameter(module + ".logit_scale", {stage.heads, 1, 1}, WeightRole::other);
  scale = block.clamp(module + ".clamp", scale);
  scale = block.view(module + ".exp", scale, {stage.heads, 1, 1});
  block.last().kind = OperatorKind::unary;
  block.last().saves = Saves::output;
  scores = block.multiply(module + ".scaled", scores, scale);
  scores = block.add(module + ".biased", scores, bias_of_distances(block, net, stage, tokens));
  if (shifted) {
    // The mask of shifted windows, made anew; the code adds it twice.
    const TensorRef mask = block.values(module + ".mask", {windows, 1, tokens, tokens});
    scores = block.add(module + ".masked", scores, mask);
    scores = block.add(module + ".masked_again", scores, mask);
  }
  scores = block.view(module + ".softmax", scores, pairs);
  block.last().kind = OperatorKind::softmax;
  block.last().wide = true;
  scores = block.dropout(module + ".dropout", scores, net.attention_dropout);
  const TensorRef values = block.contiguous(module + ".value_rows", v);
  TensorRef mixed =
      product(block, module + ".context", scores, values, {windows, stage.heads, tokens, width});
  mixed = block.view(module + ".turn", mixed, {windows, tokens, stage.width}, true);
  return block.contiguous(module + ".contiguous", mixed);
}

// SwinLayer.forward: windows of the padded picture, turned by half a window where they shift.
TensorRef over_windows(BlockBuilder& block, TensorRef x, const Swin& net, const Stage& stage,
                       bool shifted) {
  const std::int64_t samples = block.shape(x).at(0);
  const std::int64_t side = std::min({net.window, stage.rows, stage.columns});
  const Shape whole = {samples, stage.rows, stage.columns, stage.width};
  const Shape wide = {samples, padded(stage.rows, side), padded(stage.columns, side), stage.width};
  const std::int64_t count = wide[1] / side * (wide[2] / side);
  TensorRef h = block.pad("maybe_pad", block.view("picture", x, whole), wide);
  if (shifted) h = block.roll("roll", h);
  h = block.view("window_partition", h, {samples * count, side * side, stage.width}, true);
  h = block.contiguous("window_partition.contiguous", h);
  h = net.second ? cosine_attention(block, h, net, stage, shifted)
                 : attention(block, h, net, stage, shifted);
  h = block.linear("attention.output.dense", h, stage.width, {.bias = true});
  h = block.dropout("attention.output.dropout", h, net.attention_dropout);
  h = block.view("window_reverse", h, wide, true);
  h = block.contiguous("window_reverse.contiguous", h);
  if (shifted) h = block.roll("roll_back", h);
  if (wide != whole) h = block.pad("crop", h, whole);
  return block.view("tokens", h, {samples, stage.tokens(), stage.width});
}

Block layer_of(const Graph& graph, const Swin& net, const Stage& stage, int kind) {
  BlockBuilder block(graph, stage.name + ".blocks");
  const double drop_path = (kind & kDrops) != 0 ? net.drop_path : 0.0;
  const TensorRef x = block.input({graph.batch, stage.tokens(), stage.width});
  TensorRef h = net.second ? x : block.layer_norm("layernorm_before", x);
  h = over_windows(block, h, net, stage, (kind & kShifted) != 0);
  if (net.second) h = block.layer_norm("layernorm_before", h);
  const TensorRef middle =
      block.add("residual_attention", x, block.drop_path("drop_path", h, drop_path));
  h = net.second ? middle : block.layer_norm("layernorm_after", middle);
  const auto inner = static_cast<std::int64_t>(net.ratio * static_cast<double>(stage.width));
  h = block.linear("intermediate.dense", h, inner, {.bias = true});
  h = block.activation("intermediate.act", h, net.activation);
  h = block.linear("output.dense", h, stage.width, {.bias = true});
  h = block.dropout("output.dropout", h, net.hidden_dropout);
  if (net.second) {
    h = block.drop_path("drop_path_mlp", block.layer_norm("layernorm_after", h), drop_path);
  }
  return block.finish(block.add("residual_mlp", middle, h));
}

// SwinPatchMerging; the next stage.
Stage add_merging(Graph& graph, const Swin& net, const Stage& stage) {
  constexpr std::int64_t kNeighbours = 4;
  Stage next = stage;
  next.rows = (stage.rows + 1) / 2;
  next.columns = (stage.columns + 1) / 2;
  next.width = 2 * stage.width;
  BlockBuilder block(graph, "middle");
  TensorRef x = block.input({graph.batch, stage.tokens(), stage.width});
  const Shape whole = {graph.batch, stage.rows, stage.columns, stage.width};
  const Shape even = {graph.batch, 2 * next.rows, 2 * next.columns, stage.width};
  x = block.view("picture", x, whole);
  if (even != whole) x = block.pad("maybe_pad", x, even);
  x = block.view("neighbours", x, {graph.batch, next.tokens(), kNeighbours * stage.width}, true);
  x = block.contiguous("cat", x);
  if (!net.second) x = block.layer_norm(stage.name + ".downsample.norm", x);
  x = block.linear(stage.name + ".downsample.reduction", x, next.width);
  if (net.second) x = block.layer_norm(stage.name + ".downsample.norm", x);
  graph.segments.push_back({1, {block.finish(x)}});
  return next;
}

Swin read(ConfigReader& config, const SampleShape& sample) {
  Swin net;
  const std::int64_t side = config.whole({"image_size"}, 224, kSideLimits);
  net.picture = picture_of(sample, side, side, config.whole({"num_channels"}, 3, kChannelLimits));
  net.patch = config.whole({"patch_size"}, 4, kSideLimits);
  net.width = config.whole({"embed_dim"}, 96, kChannelLimits);
  net.depths = config.whole_list({"depths"}, {2, 2, 6, 2}, kLayerLimits);
  net.heads = config.whole_list({"num_heads"}, {3, 6, 12, 24}, kHeadLimits);
  net.window = config.whole({"window_size"}, 7, kSideLimits);
  net.ratio = config.real({"mlp_ratio"}, 4.0, 0.01, 1024.0);
  net.qkv_bias = config.flag({"qkv_bias"}, true);
  net.absolute = config.flag({"use_absolute_embeddings"}, false);
  net.hidden_dropout = config.probability({"hidden_dropout_prob"}, 0.0);
  net.attention_dropout = config.probability({"attention_probs_dropout_prob"}, 0.0);
  net.drop_path = config.probability({"drop_path_rate"}, 0.1);
  net.activation = config.activation({"hidden_act"}, "gelu");
  net.classes = labels_of(config);
  if (net.heads.size() != net.depths.size() || net.heads.empty()) {
    config.reject("num_heads", fmt::format("{} stages", net.heads.size()),
                  fmt::format("one for each of the {} depths", net.depths.size()));
    net.heads = net.depths = {1};
  }
  if (net.absolute) {
    config.reject("use_absolute_embeddings", "true",
                  "false: no published Swin adds learned positions");
  }
  return net;
}

void add_stage(Graph& graph, const Swin& net, const Stage& stage, std::int64_t depth, bool first) {
  const bool shifts = std::min(stage.rows, stage.columns) > net.window;
  std::vector<int> kinds;
  for (std::int64_t i = 0; i < depth; ++i) {
    const bool drops = net.drop_path > 0.0 && !(first && i == 0);
    kinds.push_back((shifts && i % 2 == 1 ? kShifted : 0) | (drops ? kDrops : 0));
  }
  add_layers(graph, kinds, [&](int kind) { return layer_of(graph, net, stage, kind); });
  graph.layers += depth;
}

}  // namespace

namespace {

// relative_coords_table, a buffer of every layer: it exists before the step.
TensorRef add_places(Graph& graph, const Swin& net, const Stage& stage) {
  const std::int64_t reach = 2 * std::min({net.window, stage.rows, stage.columns}) - 1;
  graph.shared.push_back(
      {stage.name + ".relative_coords_table", {1, reach, reach, 2}, ElementKind::pixels});
  return {true, static_cast<std::int32_t>(graph.shared.size()) - 1};
}

Graph build_net(ConfigReader& config, const SampleShape& sample, const Swin& net) {
  Graph graph = start_picture_graph(config, sample, net.picture);
  Stage stage;
  stage.width = net.width;
  BlockBuilder embed(graph, "embed");
  TensorRef x = embed.conv(net.root + ".embeddings.patch_embeddings.projection", kPixels, net.width,
                           {.kernel = net.patch, .stride = net.patch, .bias = true});
  stage.rows = embed.shape(x).at(2);
  stage.columns = embed.shape(x).at(3);
  x = embed.view("patches", x, {graph.batch, stage.tokens(), net.width}, true);
  x = embed.layer_norm(net.root + ".embeddings.norm", x);
  x = embed.dropout(net.root + ".embeddings.dropout", x, net.hidden_dropout);
  graph.segments.push_back({1, {embed.finish(x)}});
  for (std::size_t i = 0; i < net.depths.size(); ++i) {
    stage.name = fmt::format("{}.encoder.layers.{}", net.root, i);
    stage.heads = net.heads[i];
    if (net.second) stage.places = add_places(graph, net, stage);
    add_stage(graph, net, stage, net.depths[i], i == 0);
    if (i + 1 < net.depths.size()) stage = add_merging(graph, net, stage);
  }
  graph.hidden = stage.width;
  BlockBuilder head(graph, "head");
  x = head.input({graph.batch, stage.tokens(), stage.width});
  x = head.global_average_pool(net.root + ".pooler", head.layer_norm(net.root + ".layernorm", x));
  finish_classifier(graph, head, x, "classifier", net.classes);
  return graph;
}

}  // namespace

Graph build_swin(ConfigReader& config, const SampleShape& sample) {
  return build_net(config, sample, read(config, sample));
}

Graph build_swinv2(ConfigReader& config, const SampleShape& sample) {
  Swin net = read(config, sample);
  net.second = true;
  net.root = "swinv2";
  return build_net(config, sample, net);
}

}  // namespace steelyard::model
