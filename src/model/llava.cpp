// Models whose pictures go through a tower of their own and a projector into a decoder: LLaVA,
// PaliGemma and Gemma 3 (transformers: modeling_llava.py, modeling_paligemma.py,
// modeling_gemma3.py).
#include <fmt/format.h>

#include <cmath>

#include "model/picture_text.h"
#include "model/vision_family.h"
#include "model/vision_tower.h"

namespace steelyard::model {

namespace {

const TextNames kInner{.root = "language_model.model", .head = "language_model.lm_head"};
constexpr const char* kTower = "vision_tower.vision_model";

PicturesOfSample pictures_of_tower(const VisionTower& tower, const SampleShape& sample,
                                   std::int64_t tokens) {
  const std::int64_t images = std::max<std::int64_t>(1, sample.images);
  return {tower.pixels(), tower.height, tower.width, checked_multiply(images, tokens)};
}

// hidden_states[layer] of a tower of L layers, which are L + 1: how many layers lie before it.
std::int64_t layers_before(ConfigReader& config, std::int64_t layer, std::int64_t layers) {
  const std::int64_t before = layer >= 0 ? layer : layers + 1 + layer;
  if (before >= 0 && before <= layers) return before;
  config.reject("vision_feature_layer", fmt::format("{}", layer),
                fmt::format("from {} to {}", -layers - 1, layers));
  return layers;
}

}  // namespace

Graph build_llava(ConfigReader& config, const SampleShape& sample) {
  const TextStack text = read_text_stack(config, kInner, "llama");
  ConfigReader vision_config = config.table("vision_config");
  VisionTower tower = read_vision_tower(vision_config, kTower, "clip_vision_model");
  set_pictures(vision_config, tower, sample, pictures_of(sample));
  config.adopt(vision_config);
  constexpr Limits kAnyLayer{-kLayerLimits.most, kLayerLimits.most};
  const std::int64_t read =
      layers_before(config, config.whole({"vision_feature_layer"}, -2, kAnyLayer), tower.layers);
  const std::string strategy =
      config.choice({"vision_feature_select_strategy"}, "default", {"default", "full"});
  const ActivationKind activation = config.activation({"projector_hidden_act"}, "gelu");
  const bool bias = config.flag({"multimodal_projector_bias"}, true);
  const std::int64_t left_out = strategy == "default" ? 1 : 0;

  Graph graph = start_picture_text(config, text, sample,
                                   pictures_of_tower(tower, sample, tower.tokens() - left_out));
  add_vision_layers(graph, tower, kPixelValues, read);
  BlockBuilder block(graph, "middle");
  TensorRef x = block.input(tower.stream());
  add_unread_layers(block, x, tower, read);
  if (left_out > 0) x = block.contiguous("features", block.tokens_from("selected", x, left_out));
  x = block.linear("multi_modal_projector.linear_1", x, graph.hidden, {.bias = bias});
  x = block.activation("multi_modal_projector.act", x, activation);
  x = block.linear("multi_modal_projector.linear_2", x, graph.hidden, {.bias = bias});
  graph.segments.push_back({1, {block.finish(add_merged_embedding(graph, block, text, x))}});
  add_text_layers(graph, text);
  return graph;
}

// Pictures and the prompt behind them are read from both sides: the mask is the sample's own, and
// the arithmetic that of a causal one.
Graph build_paligemma(ConfigReader& config, const SampleShape& sample) {
  TextStack text = read_text_stack(config, kInner, "gemma");
  ConfigReader vision_config = config.table("vision_config");
  VisionTower tower = read_vision_tower(vision_config, kTower, "siglip_vision_model");
  set_pictures(vision_config, tower, sample, pictures_of(sample));
  const std::int64_t width =
      vision_config.whole({"projection_dim"}, text.sizes.hidden, kHiddenLimits);
  config.adopt(vision_config);

  Graph graph =
      start_picture_text(config, text, sample, pictures_of_tower(tower, sample, tower.tokens()));
  add_vision_layers(graph, tower, kPixelValues, tower.layers);
  BlockBuilder block(graph, "middle");
  TensorRef x = add_post_norm(block, block.input(tower.stream()), tower);
  if (tower.pools) {
    const std::size_t from = block.weight_count();
    (void)add_pooling(block, x, tower);
    block.leave_unread(from);
  }
  x = block.linear("multi_modal_projector.linear", x, width, {.bias = true});
  x = block.scale("features", x, 1.0 / std::sqrt(static_cast<double>(text.sizes.hidden)));
  graph.segments.push_back({1, {block.finish(add_merged_embedding(graph, block, text, x))}});
  add_text_layers(graph, text);
  return graph;
}

namespace {

// Gemma3MultiModalProjector: the patches as a picture, averaged down to the tokens a picture has,
// normed, and multiplied by a matrix that is no linear's.
TensorRef projected(BlockBuilder& block, TensorRef x, const VisionTower& tower, std::int64_t side,
                    std::int64_t width) {
  const std::string at = "multi_modal_projector.";
  const std::int64_t hidden = tower.layer.hidden;
  const std::int64_t tokens = checked_multiply(side, side);
  const std::int64_t patches = tower.side / tower.patch;
  x = block.view(at + "picture", x, {tower.pictures, hidden, patches, patches}, true);
  x = block.average_pool(at + "avg_pool", block.contiguous(at + "contiguous", x), side, side);
  x = block.view(at + "tokens", x, {tower.pictures, tokens, hidden}, true);
  x = block.rms_norm(at + "mm_soft_emb_norm", x, true);
  x = block.contiguous(at + "rows", x);
  x = block.view(at + "flat", x, {1, checked_multiply(tower.pictures, tokens), hidden});
  const TensorRef matrix =
      block.parameter(at + "mm_input_projection_weight", {hidden, width}, WeightRole::other);
  const TensorRef square = block.view(at + "matrix", matrix, {1, hidden, width});
  x = block.view(at + "projected", x, {1, block.shape(x).at(1), width});
  block.last().kind = OperatorKind::matmul;
  block.last().inputs.push_back(square);
  return x;
}

}  // namespace

// Names as in its checkpoints and transformers up to 4.51. Pictures are read from both sides, as
// PaliGemma's.
Graph build_gemma3(ConfigReader& config, const SampleShape& sample) {
  TextStack text = read_text_stack(config, kInner, "gemma3_text");
  text.scales_text_alone = true;
  ConfigReader vision_config = config.table("vision_config");
  VisionTower tower = read_vision_tower(vision_config, kTower, "siglip_vision_model");
  // The projector knows one size: the loader brings every picture to it.
  tower.pictures = pictures_of(sample);
  tower.height = tower.width = tower.side;
  config.adopt(vision_config);
  constexpr Limits kTokens{1, 1'048'576};
  const std::int64_t wanted = config.whole({"mm_tokens_per_image"}, 256, kTokens);
  const auto side = static_cast<std::int64_t>(std::sqrt(static_cast<double>(wanted)));
  if (side > tower.side / tower.patch) {
    config.reject("mm_tokens_per_image", fmt::format("{}", wanted),
                  fmt::format("at most the {} patches of a picture", tower.patches()));
    return Graph();
  }
  PicturesOfSample pictures = pictures_of_tower(tower, sample, checked_multiply(side, side));
  if (sample.height > 0 && sample.width > 0) {
    pictures.height = sample.height;
    pictures.width = sample.width;
  }
  Graph graph = start_picture_text(config, text, sample, pictures);
  add_vision_layers(graph, tower, kPixelValues, tower.layers);
  BlockBuilder block(graph, "middle");
  TensorRef x = add_post_norm(block, block.input(tower.stream()), tower);
  if (tower.pools) {
    const std::size_t from = block.weight_count();
    (void)add_pooling(block, x, tower);
    block.leave_unread(from);
  }
  x = projected(block, x, tower, side, graph.hidden);
  x = block.view("features", x, {tower.pictures, checked_multiply(side, side), graph.hidden});
  graph.segments.push_back({1, {block.finish(add_merged_embedding(graph, block, text, x))}});
  add_text_layers(graph, text);
  return graph;
}

}  // namespace steelyard::model
