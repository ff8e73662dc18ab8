// Idefics 3 and SmolVLM (transformers: modeling_idefics3.py, modeling_smolvlm.py): SigLIP's layers
// over each tile of a picture, neighbouring tokens joined into one, a matrix, and a decoder. Tiles
// are as large as image_size; the loader cuts a picture larger than that into rows and columns of
// them and adds one of the whole (image_processing_idefics3.py, split_image).
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "model/picture_text.h"
#include "model/vision_family.h"
#include "model/vision_tower.h"

namespace steelyard::model {

namespace {

const TextNames kInner{.root = "model.text_model", .head = "lm_head"};
constexpr const char* kTower = "model.vision_model";

VisionTower read_tower(ConfigReader& config) {
  VisionTower tower;
  tower.root = kTower;
  tower.layer.wide_softmax = true;
  tower.layer.hidden = config.whole({"hidden_size"}, 1152, kHiddenLimits);
  tower.layer.inner = config.whole({"intermediate_size"}, 3072, kWideLimits);
  tower.layer.heads = config.whole({"num_attention_heads"}, 16, kHeadLimits);
  tower.layer.activation = config.activation({"hidden_act"}, "gelu_pytorch_tanh");
  tower.layer.dropout = config.probability({"attention_dropout"}, 0.0);
  tower.layers = config.whole({"num_hidden_layers"}, 12, kLayerLimits);
  tower.patch = config.whole({"patch_size"}, 32, kSideLimits);
  tower.side = config.whole({"image_size"}, 224, kSideLimits);
  tower.channels = config.whole({"num_channels"}, 3, kChannelLimits);
  tower.height = tower.width = tower.side;
  (void)divided_heads(config, tower.layer.hidden, tower.layer.heads, "hidden_size",
                      "num_attention_heads");
  if (tower.patches() > 0) return tower;
  config.reject("patch_size", fmt::format("{}", tower.patch),
                fmt::format("at most image_size = {}", tower.side));
  tower.patch = tower.side;
  return tower;
}

std::int64_t tiles_of(const VisionTower& tower, const SampleShape& sample) {
  const std::int64_t rows = std::max<std::int64_t>(1, ceil_divide(sample.height, tower.side));
  const std::int64_t columns = std::max<std::int64_t>(1, ceil_divide(sample.width, tower.side));
  const std::int64_t tiles = checked_multiply(rows, columns);
  return tiles > 1 ? tiles + 1 : 1;
}

Block embed(const Graph& graph, const VisionTower& tower) {
  const std::string at = tower.root + ".embeddings.";
  const std::int64_t side = tower.side / tower.patch;
  BlockBuilder block(graph, "embed");
  // pixel_values[real_images_inds]: without those that only fill a batch up, a copy.
  TensorRef x = block.view(at + "real_images", kPixelValues, tower.pixels(), true);
  x = block.contiguous(at + "pixel_values", x);
  x = block.conv(at + "patch_embedding", x, tower.layer.hidden,
                 {.kernel = tower.patch, .stride = tower.patch, .bias = true});
  x = block.view(at + "patches", x, tower.stream(), true);
  // Places of each tile's own, by how much of it is picture.
  const TensorRef ids =
      block.values(at + "position_ids", {tower.pictures, tower.patches()}, ElementKind::index);
  const TensorRef places = block.embedding(at + "position_embedding", ids,
                                           checked_multiply(side, side), tower.layer.hidden);
  return block.finish(block.add(at + "add_positions", x, places));
}

Block layer_of(const Graph& graph, const VisionTower& tower) {
  BlockBuilder block(graph, tower.root + ".encoder.layers");
  const TensorRef x = block.input(tower.stream());
  return block.finish(add_pre_norm_layer(block, x, tower.layer));
}

// pixel_shuffle: two turns, each a copy.
TensorRef shuffled(BlockBuilder& block, TensorRef x, const VisionTower& tower, std::int64_t fold) {
  const std::int64_t side = tower.side / tower.patch;
  const std::int64_t hidden = tower.layer.hidden;
  const std::string at = "model.connector.pixel_shuffle.";
  x = block.view(at + "turn", x, {tower.pictures, side / fold, side, hidden * fold}, true);
  x = block.contiguous(at + "columns", x);
  x = block.view(at + "turn_back", x,
                 {tower.pictures, side / fold * (side / fold), hidden * fold * fold}, true);
  return block.contiguous(at + "rows", x);
}

}  // namespace

Graph build_idefics3(ConfigReader& config, const SampleShape& sample) {
  const TextStack text = read_text_stack(config, kInner, "llama");
  ConfigReader vision_config = config.table("vision_config");
  VisionTower tower = read_tower(vision_config);
  config.adopt(vision_config);
  constexpr Limits kFolds{1, 64};
  std::int64_t fold = config.whole({"scale_factor"}, 2, kFolds);
  const std::int64_t side = tower.side / tower.patch;
  if (side % fold != 0) {
    config.reject("scale_factor", fmt::format("{}", fold),
                  fmt::format("a divisor of the {} patches of a tile's side", side));
    fold = 1;
  }
  const std::int64_t tiles = tiles_of(tower, sample);
  const std::int64_t images = std::max<std::int64_t>(1, sample.images);
  tower.pictures = checked_multiply(pictures_of(sample), tiles);
  const std::int64_t features = side / fold * (side / fold);
  const bool given = sample.height > 0 && sample.width > 0;

  Graph graph = start_picture_text(
      config, text, sample,
      {tower.pixels(), given ? sample.height : tower.side, given ? sample.width : tower.side,
       checked_multiply(checked_multiply(images, tiles), features)});
  // make_pixel_mask: int64 of every pixel.
  graph.batch_tensors.push_back(
      {"pixel_attention_mask", {tower.pictures, tower.side, tower.side}, ElementKind::token_ids});
  graph.segments.push_back({1, {embed(graph, tower)}});
  graph.segments.push_back({tower.layers, {layer_of(graph, tower)}});
  BlockBuilder block(graph, "middle");
  TensorRef x = add_post_norm(block, block.input(tower.stream()), tower);
  x = shuffled(block, x, tower, fold);
  x = block.linear("model.connector.modality_projection.proj", x, graph.hidden);
  graph.segments.push_back({1, {block.finish(add_merged_embedding(graph, block, text, x))}});
  add_text_layers(graph, text);
  return graph;
}

}  // namespace steelyard::model
