// Llama 4 with its tower for pictures (transformers 4.57: modeling_llama4.py): a pre-norm vision
// transformer that turns queries and keys as complex numbers, four neighbouring tokens joined into
// one, a projector, and the text model.
//
// The processor cuts a picture into tiles of the tower's side, at most 16, and adds the whole
// picture, made smaller, where there are several (image_processing_llama4_fast.py).
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "model/image_parts.h"
#include "model/llama4.h"
#include "model/picture_text.h"

namespace steelyard::model {

namespace {

const TextNames kInner{.root = "language_model.model", .head = "language_model.lm_head"};
const std::string kTower = "vision_model.";
// Shared tensors behind those of pictures and text.
constexpr TensorRef kTurns{true, 4}, kTurnsUnused{true, 5};
constexpr std::int64_t kMostTiles = 16;

struct Tower {
  std::int64_t hidden = 768, layers = 34, heads = 16, inner = 5632, channels = 3;
  std::int64_t side = 448, patch = 14, fold = 2;
  std::int64_t projected = 4096, adapted = 4096, output = 7680;
  double dropout = 0.0, projector_dropout = 0.0;

  [[nodiscard]] std::int64_t patches() const { return (side / patch) * (side / patch); }
  [[nodiscard]] std::int64_t tokens() const { return patches() + 1; }
  [[nodiscard]] std::int64_t features() const { return patches() / (fold * fold); }
};

Tower read_tower(ConfigReader& config) {
  Tower tower;
  tower.hidden = config.whole({"hidden_size"}, 768, kHiddenLimits);
  tower.layers = config.whole({"num_hidden_layers"}, 34, kLayerLimits);
  tower.heads = config.whole({"num_attention_heads"}, 16, kHeadLimits);
  tower.inner = config.whole({"intermediate_size"}, 5632, kWideLimits);
  tower.channels = config.whole({"num_channels"}, 3, kChannelLimits);
  tower.side = config.whole({"image_size"}, 448, kSideLimits);
  tower.patch = config.whole({"patch_size"}, 14, kSideLimits);
  tower.projected = config.whole({"projector_input_dim"}, 4096, kWideLimits);
  tower.adapted = config.whole({"projector_output_dim"}, 4096, kWideLimits);
  tower.output = config.whole({"vision_output_dim"}, 7680, kWideLimits);
  tower.dropout = config.probability({"attention_dropout"}, 0.0);
  tower.projector_dropout = config.probability({"projector_dropout"}, 0.0);
  constexpr double kSmallest = 1.0 / 64.0;
  const double ratio = config.real({"pixel_shuffle_ratio"}, 0.5, kSmallest, 1.0);
  tower.fold = static_cast<std::int64_t>(1.0 / ratio);
  (void)divided_heads(config, tower.hidden, tower.heads, "hidden_size", "num_attention_heads");
  const std::int64_t rows = tower.side / tower.patch;
  if (rows < 1 || tower.side % tower.patch != 0 || rows % tower.fold != 0) {
    config.reject("patch_size", fmt::format("{}", tower.patch),
                  fmt::format("one that divides image_size {} into a multiple of {} rows",
                              tower.side, tower.fold));
    tower.patch = tower.side;
    tower.fold = 1;
  }
  if (tower.inner != tower.hidden * tower.fold * tower.fold) {
    config.reject("intermediate_size", fmt::format("{}", tower.inner),
                  fmt::format("{}: what the adapter reads of {} joined tokens",
                              tower.hidden * tower.fold * tower.fold, tower.fold * tower.fold));
  }
  return tower;
}

std::int64_t tiles_of(const SampleShape& sample, const Tower& tower) {
  if (sample.height <= tower.side && sample.width <= tower.side) return 1;
  const std::int64_t tiles =
      ceil_divide(sample.height, tower.side) * ceil_divide(sample.width, tower.side);
  return std::min(tiles, kMostTiles) + 1;
}

// Unfold copies the pixels patch by patch, and the linear reads them turned, which is a copy.
Block embed(Graph& graph, const Tower& tower, std::int64_t tiles) {
  BlockBuilder block(graph, "embed");
  const std::int64_t pixels = tower.channels * tower.patch * tower.patch;
  TensorRef x = block.view("pixels", kPixelValues, {tiles, pixels, tower.patches()}, true);
  x = block.contiguous("unfold", x);
  x = block.view("patches", x, {tiles, tower.patches(), pixels}, true);
  x = block.contiguous("turned", x);
  x = block.linear(kTower + "patch_embedding.linear", x, tower.hidden);
  x = block.class_tokens("class_token", x, {kTower + "class_embedding"}, true);
  x = block.add_weight(kTower + "positional_embedding_vlm", x, {tower.tokens(), tower.hidden});
  x = block.layer_norm(kTower + "layernorm_pre", x);
  block.rotary_table(kTower + "rotary_embedding", kTurns, kTurnsUnused);
  block.last().wide_tables = true;
  return block.finish(x);
}

Block layer_of(const Graph& graph, const Tower& tower, std::int64_t tiles) {
  BlockBuilder block(graph, kTower + "model.layers");
  const TensorRef x = block.input({tiles, tower.tokens(), tower.hidden});
  const std::string module = "self_attn.";
  TensorRef h = block.layer_norm("input_layernorm", x);
  const auto heads = [&](const std::string& part) {
    return block.heads(module + part + "_heads",
                       block.linear(module + part + "_proj", h, tower.hidden, {.bias = true}),
                       tower.heads);
  };
  TensorRef q = heads("q"), k = heads("k");
  const TensorRef v = heads("v");
  const std::int64_t width = tower.hidden / tower.heads;
  std::tie(q, k) = block.rotary(module + "rotary", q, k, kTurns, kTurnsUnused, width, false);
  block.last().turns_complex = true;
  h = block.attention("self_attn", q, k, v,
                      {.heads = tower.heads,
                       .kv_heads = tower.heads,
                       .head_dim = width,
                       .causal = false,
                       .dropout = tower.dropout});
  h = block.linear(module + "o_proj", h, tower.hidden, {.bias = true});
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.layer_norm("post_attention_layernorm", middle);
  h = block.linear("mlp.fc1", h, tower.inner, {.bias = true});
  h = block.activation("mlp.activation_fn", h, ActivationKind::gelu);
  h = block.linear("mlp.fc2", h, tower.hidden, {.bias = true});
  return block.finish(block.add("residual_mlp", middle, h));
}

// pixel_shuffle: two turns, each a copy.
TensorRef shuffled(BlockBuilder& block, TensorRef x, const Tower& tower) {
  const std::int64_t tiles = block.shape(x).at(0), rows = tower.side / tower.patch;
  const Shape half = {tiles, rows / tower.fold, rows, tower.hidden * tower.fold};
  const Shape whole = {tiles, tower.features(), tower.hidden * tower.fold * tower.fold};
  x = block.contiguous("pixel_shuffle.columns", block.view("pixel_shuffle.turn", x, half, true));
  x = block.view("pixel_shuffle.turn_back", x, whole, true);
  return block.contiguous("pixel_shuffle.rows", x);
}

// The tower's end, the projector, and the features in the places of the pictures' tokens.
Block middle_of(const Graph& graph, const Tower& tower, const TextStack& text, std::int64_t tiles) {
  BlockBuilder block(graph, "middle");
  TensorRef x = block.input({tiles, tower.tokens(), tower.hidden});
  x = block.layer_norm(kTower + "layernorm_post", x);
  x = block.contiguous("features", block.tokens_from("selected", x, 1));
  x = shuffled(block, x, tower);
  const std::string adapter = kTower + "vision_adapter.mlp.";
  x = block.linear(adapter + "fc1", x, tower.projected);
  x = block.activation(adapter + "activation_fn", x, ActivationKind::gelu);
  x = block.dropout(adapter + "dropout", x, tower.projector_dropout);
  x = block.linear(adapter + "fc2", x, tower.adapted);
  x = block.activation(adapter + "activation_fn_2", x, ActivationKind::gelu);
  x = block.linear("multi_modal_projector.linear_1", x, graph.hidden);
  x = add_merged_embedding(graph, block, text, x);
  block.last().wide_tables = true;  // the text's own rotary table
  return block.finish(x);
}

}  // namespace

Graph build_llama4_pictures(ConfigReader& config, const SampleShape& sample) {
  ConfigReader text_config = config.table("text_config");
  const TextStack text = read_llama4_stack(text_config, kInner);
  config.adopt(text_config);
  ConfigReader vision_config = config.table("vision_config");
  const Tower tower = read_tower(vision_config);
  config.adopt(vision_config);
  if (tower.adapted != tower.output || tower.adapted != tower.projected) {
    config.reject(
        "vision_config.vision_output_dim", fmt::format("{}", tower.output),
        fmt::format("{}, as projector_input_dim and projector_output_dim", tower.adapted));
  }
  const std::int64_t images = std::max<std::int64_t>(1, sample.images);
  const std::int64_t of_picture = tiles_of(sample, tower);
  const std::int64_t tiles = checked_multiply(pictures_of(sample), of_picture);
  Graph graph = start_picture_text(
      config, text, sample,
      {{tiles, tower.channels, tower.side, tower.side},
       sample.height > 0 ? sample.height : tower.side,
       sample.width > 0 ? sample.width : tower.side,
       checked_multiply(images, checked_multiply(of_picture, tower.features()))});
  graph.shared.at(static_cast<std::size_t>(kSin.index)).shape = {1};  // both are in the first
  graph.shared.push_back(
      {"turns", {1, tower.tokens(), tower.hidden / tower.heads}, ElementKind::real});
  graph.shared.push_back({"turns_unused", {1}, ElementKind::real});
  graph.segments.push_back({1, {embed(graph, tower, tiles)}});
  graph.segments.push_back({tower.layers, {layer_of(graph, tower, tiles)}});
  graph.segments.push_back({1, {middle_of(graph, tower, text, tiles)}});
  add_text_layers(graph, text);
  return graph;
}

}  // namespace steelyard::model
