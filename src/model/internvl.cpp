// InternVL (transformers 4.57: modeling_internvl.py): a pre-norm vision transformer with learned
// scales, four neighbouring tokens joined into one, a projector, and a decoder.
#include <fmt/format.h>

#include <string>

#include "model/patch_layers.h"
#include "model/picture_text.h"
#include "model/vision_family.h"

namespace steelyard::model {

namespace {

const TextNames kInner{.root = "model.language_model", .head = "lm_head"};
constexpr const char* kTower = "model.vision_tower";

struct Tower {
  PatchLayers net;
  bool norms_rms = false, qk_norm = false, attention_bias = false, absolute = true;
  bool mask_token = false, post_norm = false;
  double projection_dropout = 0.0;
  [[nodiscard]] std::int64_t tokens() const { return 1 + net.patches(); }
};

// image_size and patch_size are numbers, or two equal ones.
std::int64_t side_of(ConfigReader& config, std::string_view key, std::int64_t otherwise) {
  if (config.value(key).as_array() == nullptr) return config.whole({key}, otherwise, kSideLimits);
  const auto sides = config.whole_list({key}, {otherwise, otherwise}, kSideLimits);
  if (sides.size() == 2 && sides[0] == sides[1]) return sides[0];
  config.reject(std::string(key), fmt::format("{} sides", sides.size()), "two equal ones");
  return otherwise;
}

Tower read_tower(ConfigReader& config, const SampleShape& sample) {
  Tower tower;
  PatchLayers& net = tower.net;
  net.side = side_of(config, "image_size", 448);
  net.patch = side_of(config, "patch_size", 14);
  net.picture =
      picture_of(sample, net.side, net.side, config.whole({"num_channels"}, 3, kChannelLimits));
  net.hidden = config.whole({"hidden_size"}, 1024, kHiddenLimits);
  net.layers = config.whole({"num_hidden_layers"}, 24, kLayerLimits);
  net.heads = config.whole({"num_attention_heads"}, 16, kHeadLimits);
  net.inner = config.whole({"intermediate_size"}, 4096, kWideLimits);
  net.activation = config.activation({"hidden_act"}, "gelu");
  net.hidden_dropout = config.probability({"hidden_dropout_prob"}, 0.0);
  net.attention_dropout = config.probability({"attention_dropout"}, 0.0);
  tower.projection_dropout = config.probability({"projection_dropout"}, 0.0);
  tower.attention_bias = config.flag({"attention_bias"}, false);
  tower.qk_norm = config.flag({"use_qk_norm"}, false);
  tower.absolute = config.flag({"use_absolute_position_embeddings"}, true);
  tower.mask_token = config.flag({"use_mask_token"}, false);
  tower.post_norm = !config.flag({"use_mean_pooling"}, true);
  tower.norms_rms =
      config.choice({"norm_type"}, "layer_norm", {"layer_norm", "rms_norm"}) == "rms_norm";
  (void)divided_heads(config, net.hidden, net.heads, "hidden_size", "num_attention_heads");
  if (net.patches() < 1 || net.own_rows() < 1) {
    config.reject(
        "patch_size", fmt::format("{}", net.patch),
        fmt::format("at most the picture's {} x {} pixels", net.picture.height, net.picture.width));
    net.patch = 1;
  }
  return tower;
}

Block embed(const Graph& graph, const Tower& tower, std::int64_t pictures) {
  const PatchLayers& net = tower.net;
  const std::string at = std::string(kTower) + ".embeddings.";
  BlockBuilder block(graph, "embed");
  TensorRef x = block.conv(at + "patch_embeddings.projection", kPixelValues, net.hidden,
                           {.kernel = net.patch, .stride = net.patch, .bias = true});
  x = block.view("patches", x, {pictures, net.patches(), net.hidden}, true);
  if (tower.mask_token) {
    const std::size_t from = block.weight_count();
    (void)block.parameter(at + "mask_token", {1, 1, net.hidden}, WeightRole::other);
    block.leave_unread(from);
  }
  x = block.class_tokens("class_token", x, {at + "cls_token"});
  if (tower.absolute) x = add_positions(block, net, at + "position_embeddings", x);
  return block.finish(block.dropout(at + "dropout", x, net.hidden_dropout));
}

TensorRef normed(BlockBuilder& block, const std::string& name, TensorRef x, bool rms) {
  return rms ? block.rms_norm(name, x) : block.layer_norm(name, x);
}

TensorRef attention(BlockBuilder& block, TensorRef x, const Tower& tower) {
  const PatchLayers& net = tower.net;
  const std::string module = "attention";
  const auto projected = [&](const char* part) {
    return block.linear(fmt::format("{}.{}_proj", module, part), x, net.hidden,
                        {.bias = tower.attention_bias});
  };
  TensorRef q = projected("q");
  TensorRef k = projected("k");
  const TensorRef v = projected("v");
  if (tower.qk_norm) {
    q = block.rms_norm(module + ".q_norm", q);
    k = block.rms_norm(module + ".k_norm", k);
  }
  q = block.heads(module + ".q_heads", q, net.heads);
  k = block.heads(module + ".k_heads", k, net.heads);
  const TensorRef mixed =
      block.attention(module, q, k, block.heads(module + ".v_heads", v, net.heads),
                      {.heads = net.heads,
                       .kv_heads = net.heads,
                       .head_dim = net.hidden / net.heads,
                       .causal = false,
                       .dropout = net.attention_dropout,
                       .casts_probabilities = false});
  x = block.linear(module + ".projection_layer", mixed, net.hidden, {.bias = true});
  return block.dropout(module + ".projection_dropout", x, tower.projection_dropout);
}

Block layer_of(const Graph& graph, const Tower& tower, std::int64_t pictures) {
  const PatchLayers& net = tower.net;
  BlockBuilder block(graph, std::string(kTower) + ".encoder.layer");
  const TensorRef x = block.input({pictures, tower.tokens(), net.hidden});
  TensorRef h = attention(block, normed(block, "layernorm_before", x, tower.norms_rms), tower);
  h = block.multiply_weight("lambda_1", h, net.hidden);
  const TensorRef middle = block.add("residual_attention", h, x);
  h = normed(block, "layernorm_after", middle, tower.norms_rms);
  h = block.linear("mlp.fc1", h, net.inner, {.bias = true});
  h = block.activation("mlp.activation_fn", h, net.activation);
  h = block.linear("mlp.fc2", h, net.hidden, {.bias = true});
  h = block.dropout("dropout", h, net.hidden_dropout);
  h = block.multiply_weight("lambda_2", h, net.hidden);
  return block.finish(block.add("residual_mlp", h, middle));
}

// pixel_shuffle: two turns, each a copy.
TensorRef shuffled(BlockBuilder& block, TensorRef x, const PatchLayers& net, std::int64_t fold) {
  const std::int64_t pictures = block.shape(x).at(0);
  const Shape half = {pictures, net.columns() / fold, net.rows(), net.hidden * fold};
  const Shape whole = {pictures, net.patches() / (fold * fold), net.hidden * fold * fold};
  x = block.contiguous("pixel_shuffle.columns", block.view("pixel_shuffle.turn", x, half, true));
  x = block.view("pixel_shuffle.turn_back", x, whole, true);
  return block.contiguous("pixel_shuffle.rows", x);
}

}  // namespace

Graph build_internvl(ConfigReader& config, const SampleShape& sample) {
  const TextStack text = read_text_stack(config, kInner, "qwen2");
  ConfigReader vision_config = config.table("vision_config");
  const Tower tower = read_tower(vision_config, sample);
  config.adopt(vision_config);
  const PatchLayers& net = tower.net;
  constexpr double kSmallest = 1.0 / 64.0;
  const double ratio = config.real({"downsample_ratio"}, 0.5, kSmallest, 1.0);
  const auto fold = static_cast<std::int64_t>(1.0 / ratio);
  if (net.rows() % fold != 0 || net.columns() % fold != 0) {
    config.reject("downsample_ratio", fmt::format("{}", ratio),
                  fmt::format("one that divides {} x {} patches", net.rows(), net.columns()),
                  "set train.image_size");
  }
  constexpr Limits kLastOnly{-1, -1};
  (void)config.whole({"vision_feature_layer"}, -1, kLastOnly);
  const bool drops_first = config.choice({"vision_feature_select_strategy"}, "default",
                                         {"default", "full"}) == "default";
  if (!drops_first) {
    config.reject("vision_feature_select_strategy", "\"full\"",
                  "\"default\": with the class token the tokens are no square");
  }
  const ActivationKind activation = config.activation({"projector_hidden_act"}, "gelu");

  const std::int64_t pictures = pictures_of(sample);
  const std::int64_t features = net.patches() / (fold * fold);
  const std::int64_t images = std::max<std::int64_t>(1, sample.images);
  Graph graph =
      start_picture_text(config, text, sample,
                         {{pictures, net.picture.channels, net.picture.height, net.picture.width},
                          net.picture.height,
                          net.picture.width,
                          checked_multiply(images, features)});
  graph.segments.push_back({1, {embed(graph, tower, pictures)}});
  graph.segments.push_back({net.layers, {layer_of(graph, tower, pictures)}});
  BlockBuilder block(graph, "middle");
  TensorRef x = block.input({pictures, tower.tokens(), net.hidden});
  if (tower.post_norm) x = block.layer_norm(std::string(kTower) + ".layernorm", x);
  x = block.tokens_from("selected", x, 1);
  x = block.contiguous("features", x);
  x = shuffled(block, x, net, fold);
  const std::string projector = "model.multi_modal_projector.";
  x = block.layer_norm(projector + "layer_norm", x);
  x = block.linear(projector + "linear_1", x, graph.hidden, {.bias = true});
  x = block.activation(projector + "act", x, activation);
  x = block.linear(projector + "linear_2", x, graph.hidden, {.bias = true});
  graph.segments.push_back({1, {block.finish(add_merged_embedding(graph, block, text, x))}});
  add_text_layers(graph, text);
  return graph;
}

}  // namespace steelyard::model
