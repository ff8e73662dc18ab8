// Llama 3.2 Vision (transformers 4.49: modeling_mllama.py): a vision transformer over the tiles of
// each picture, some of whose layers' inputs join its result, and a LLaMA some of whose layers
// read what it gives by gated cross attention instead of the text itself. A picture is one token
// of the text, whatever its size: the loader cuts it into tiles and fills up to their largest
// number (image_processing_mllama.py, pack_images).
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "model/llama_parts.h"
#include "model/picture_text.h"
#include "model/vision_family.h"
#include "model/vision_tower.h"

namespace steelyard::model {

namespace {

constexpr const char* kTower = "vision_model.";
constexpr int kCross = 1;  // kinds of text layers

// Shared tensors behind start_picture_text's. The loader brings the first three.
constexpr TensorRef kAspectRatioIds{true, 4};         // [N,1], N pictures
constexpr TensorRef kAspectRatioMask{true, 5};        // [N,tiles]
constexpr TensorRef kCrossAttentionMask{true, 6};     // [B,S,pictures,tiles]
constexpr TensorRef kTileMask{true, 7};               // [N,1,T,T], what is added to scores
constexpr TensorRef kTextMask{true, 8};               // [B,1,S,K]
constexpr TensorRef kReadsPictures{true, 9};          // [B,S,1]: 0 where a token may see none
constexpr TensorRef kCrossAttentionStates{true, 10};  // [B,K,H]
constexpr std::int32_t kFirstTap = 11;

struct Tower {
  PreNormLayer layer;
  std::int64_t layers = 32, global_layers = 8, patch = 14, side = 448, channels = 3, tiles = 4;
  std::int64_t width = 7680, ratios = 8;
  std::vector<std::int64_t> taps;  // layers whose inputs join the result
  std::int64_t pictures = 1;       // of the micro-batch

  [[nodiscard]] std::int64_t patches() const { return side / patch * (side / patch); }
  [[nodiscard]] std::int64_t tokens() const { return patches() + 1; }
  // Of a tile, filled up to a multiple of 8.
  [[nodiscard]] std::int64_t padded() const { return (tokens() + 7) / 8 * 8; }
  [[nodiscard]] Shape tiled(std::int64_t of_tile) const {
    return {pictures, tiles, of_tile, layer.hidden};
  }
  [[nodiscard]] Shape stream() const { return {pictures, tiles * padded(), layer.hidden}; }
};

struct Mllama {
  Tower tower;
  TextStack text;
  std::int64_t images = 1;  // of a sample
};

std::int64_t read_ratios(ConfigReader& config) {
  const facts::Array* ratios = config.value("supported_aspect_ratios").as_array();
  return ratios != nullptr && !ratios->empty() ? static_cast<std::int64_t>(ratios->size()) : 8;
}

Tower read_tower(ConfigReader& config, std::int64_t pictures) {
  Tower tower;
  tower.pictures = pictures;
  tower.layer.hidden = config.whole({"hidden_size"}, 1280, kHiddenLimits);
  tower.layer.inner = config.whole({"intermediate_size"}, 5120, kWideLimits);
  tower.layer.heads = config.whole({"attention_heads", "num_attention_heads"}, 16, kHeadLimits);
  tower.layer.activation = config.activation({"hidden_act"}, "gelu");
  tower.layers = config.whole({"num_hidden_layers"}, 32, kLayerLimits);
  tower.global_layers = config.whole({"num_global_layers"}, 8, kLayerLimits);
  tower.patch = config.whole({"patch_size"}, 14, kSideLimits);
  tower.side = config.whole({"image_size"}, 448, kSideLimits);
  tower.channels = config.whole({"num_channels"}, 3, kChannelLimits);
  tower.tiles = config.whole({"max_num_tiles"}, 4, {1, 1024});
  tower.width = config.whole({"vision_output_dim"}, 7680, kWideLimits);
  tower.ratios = read_ratios(config);
  tower.taps = config.whole_list({"intermediate_layers_indices"}, {3, 7, 15, 23, 30},
                                 {0, kLayerLimits.most});
  for (const std::int64_t tap : tower.taps) {
    if (tap <= tower.layers) continue;
    config.reject("intermediate_layers_indices", fmt::format("{}", tap),
                  fmt::format("at most num_hidden_layers = {}", tower.layers));
    tower.taps.clear();
    break;
  }
  const std::int64_t joined =
      checked_multiply(tower.layer.hidden, static_cast<std::int64_t>(tower.taps.size()) + 1);
  if (tower.width != joined) {
    config.reject(
        "vision_output_dim", fmt::format("{}", tower.width),
        fmt::format("hidden_size times the layers that are read and the last: {}", joined));
  }
  (void)divided_heads(config, tower.layer.hidden, tower.layer.heads, "hidden_size",
                      "num_attention_heads");
  if (tower.patches() < 1) {
    config.reject("patch_size", fmt::format("{}", tower.patch),
                  fmt::format("at most image_size = {}", tower.side));
    tower.patch = 1;
  }
  return tower;
}

// The gate, one number behind tanh.
TensorRef gate(BlockBuilder& block, const std::string& name) {
  const TensorRef weight = block.parameter(name, {1}, WeightRole::other);
  return block.activation(name + ".tanh", weight, ActivationKind::tanh);
}

// MllamaPrecomputedAspectRatioEmbedding: a vector for each tile of the picture's form.
TensorRef add_tile_positions(BlockBuilder& block, TensorRef x, const Tower& tower,
                             const std::string& name) {
  const std::int64_t hidden = tower.layer.hidden;
  TensorRef vectors = block.embedding(name + ".embedding", kAspectRatioIds, tower.ratios + 1,
                                      checked_multiply(tower.tiles, hidden));
  vectors = block.view(name + ".vectors", vectors, tower.tiled(1));
  vectors = block.multiply(name + ".gated", vectors, gate(block, name + ".gate"));
  return block.add(name + ".add", x, vectors);
}

// MllamaPrecomputedPositionEmbedding: (1 - tanh(gate)) * positions, tanh(gate) * those of the form.
TensorRef add_positions(BlockBuilder& block, TensorRef x, const Tower& tower) {
  const std::string name = std::string(kTower) + "gated_positional_embedding";
  const std::int64_t hidden = tower.layer.hidden;
  const TensorRef number = block.parameter(name + ".gate", {1}, WeightRole::other);
  TensorRef rest = block.activation(name + ".gate.tanh", number, ActivationKind::tanh);
  rest = block.scale(name + ".gate.rest", rest, -1.0);
  TensorRef own = block.parameter(name + ".embedding", {tower.tokens(), hidden}, WeightRole::other);
  own = block.multiply(name + ".gated", own, rest);
  x = block.add(name + ".add", x, own);
  const std::int64_t of_form =
      checked_multiply(checked_multiply(tower.tiles, tower.tokens()), hidden);
  TensorRef tiles =
      block.embedding(name + ".tile_embedding", kAspectRatioIds, tower.ratios + 1, of_form);
  tiles = block.view(name + ".tiles", tiles, tower.tiled(tower.tokens()));
  const TensorRef share = block.activation(name + ".gate.tanh_again", number, ActivationKind::tanh);
  return block.add(name + ".add_tiles", x, block.multiply(name + ".gated_tiles", tiles, share));
}

Block embed(const Graph& graph, const Tower& tower) {
  const std::string at = kTower;
  const std::int64_t hidden = tower.layer.hidden;
  const std::int64_t all_tiles = tower.pictures * tower.tiles;
  BlockBuilder block(graph, "embed");
  TensorRef x = block.conv(at + "patch_embedding", kPixelValues, hidden,
                           {.kernel = tower.patch, .stride = tower.patch});
  x = block.view(at + "patches", x, tower.tiled(tower.patches()), true);
  x = add_tile_positions(block, x, tower, at + "pre_tile_positional_embedding");
  x = block.view(at + "tokens", x, {all_tiles, tower.patches(), hidden});
  x = block.class_tokens(at + "class_token", x, {at + "class_embedding"}, true);
  x = block.view(at + "tiles", x, tower.tiled(tower.tokens()));
  x = add_positions(block, x, tower);
  x = block.layer_norm(at + "layernorm_pre", x);
  x = block.pad(at + "pad", x, tower.tiled(tower.padded()));
  block.padding_mask(at + "attention_mask", kAspectRatioMask, kTileMask);
  return block.finish(block.view(at + "stream", x, tower.stream()));
}

TensorRef gated(BlockBuilder& block, TensorRef h, const std::string& name, bool is_gated) {
  return is_gated ? block.multiply(name + ".gated", h, gate(block, name)) : h;
}

// MllamaVisionEncoderLayer.
Block vision_layer(const Graph& graph, const Tower& tower, bool global) {
  const PreNormLayer& layer = tower.layer;
  BlockBuilder block(
      graph, std::string(kTower) + (global ? "global_transformer" : "transformer") + ".layers");
  const TensorRef x = block.input(tower.stream());
  TensorRef h = block.layer_norm("input_layernorm", x);
  const auto projected = [&](const char* part) {
    const std::string name = fmt::format("self_attn.{}", part);
    return block.linear(name + "_proj", h, layer.hidden);
  };
  const TensorRef q = projected("q");
  const TensorRef k = projected("k");
  const TensorRef v = projected("v");
  const TensorRef mixed =
      block.masked_attention("self_attn", block.heads("self_attn.q_heads", q, layer.heads),
                             block.heads("self_attn.k_heads", k, layer.heads),
                             block.heads("self_attn.v_heads", v, layer.heads), kTileMask,
                             {.heads = layer.heads,
                              .kv_heads = layer.heads,
                              .head_dim = layer.hidden / layer.heads,
                              .causal = false,
                              .softmax_in_fp32 = true,
                              .bias = true});
  h = gated(block, block.linear("self_attn.o_proj", mixed, layer.hidden), "gate_attn", global);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.layer_norm("post_attention_layernorm", middle);
  h = block.linear("mlp.fc1", h, layer.inner, {.bias = true});
  h = block.activation("mlp.activation_fn", h, layer.activation);
  h = block.linear("mlp.fc2", h, layer.hidden, {.bias = true});
  h = gated(block, h, "gate_ffn", global);
  return block.finish(block.add("residual_mlp", middle, h));
}

// What the layers behind read and the end reads again: no layer's own, so no checkpoint's.
Block tap(const Graph& graph, const Tower& tower, std::int32_t index) {
  BlockBuilder block(graph, "middle");
  const TensorRef x = block.input(tower.stream());
  block.view(graph.shared.at(static_cast<std::size_t>(index)).name, x, tower.stream());
  block.publish({true, index});
  return block.finish(x);
}

// The local layers, parted where a layer's input is read again. Where each tap lies among the
// shared tensors, in the order of the configuration.
std::vector<TensorRef> add_local_layers(Graph& graph, const Tower& tower) {
  const std::set<std::int64_t> places(tower.taps.begin(), tower.taps.end());
  for (const std::int64_t place : places) {
    graph.shared.push_back(
        {fmt::format("{}hidden_states.{}", kTower, place), tower.stream(), ElementKind::real});
  }
  std::int64_t done = 0;
  std::int32_t index = kFirstTap;
  const auto add_up_to = [&](std::int64_t layer) {
    if (layer > done) graph.segments.push_back({layer - done, {vision_layer(graph, tower, false)}});
    done = layer;
  };
  for (const std::int64_t place : places) {
    add_up_to(place);
    graph.segments.push_back({1, {tap(graph, tower, index++)}});
  }
  add_up_to(tower.layers);
  std::vector<TensorRef> taps;
  for (const std::int64_t tap_of : tower.taps) {
    const auto before = std::distance(places.begin(), places.find(tap_of));
    taps.push_back({true, kFirstTap + static_cast<std::int32_t>(before)});
  }
  return taps;
}

void add_global_layers(Graph& graph, const Tower& tower) {
  const std::string at = kTower;
  BlockBuilder block(graph, "middle");
  TensorRef x = block.layer_norm(at + "layernorm_post", block.input(tower.stream()));
  x = block.view(at + "local_tiles", x, tower.tiled(tower.padded()));
  x = add_tile_positions(block, x, tower, at + "post_tile_positional_embedding");
  graph.segments.push_back(
      {1, {block.finish(block.view(at + "global_stream", x, tower.stream()))}});
  graph.segments.push_back({tower.global_layers, {vision_layer(graph, tower, true)}});
}

// Without what each tile was filled up with; a copy where that is anything.
TensorRef unpadded(BlockBuilder& block, TensorRef x, const Tower& tower, const std::string& name) {
  const Shape whole = block.shape(x);
  x = block.view(name + ".tiles", x, {whole[0], tower.tiles, tower.padded(), whole[2]});
  if (tower.padded() == tower.tokens()) return x;
  x = block.cut(name + ".cut", x, {whole[0], tower.tiles, tower.tokens(), whole[2]});
  return block.contiguous(name + ".copy", x);
}

// The end of the tower, what projects it for the text, and the beginning of the text.
void add_middle(Graph& graph, const Mllama& model, const std::vector<TensorRef>& taps) {
  const Tower& tower = model.tower;
  const std::string at = kTower;
  BlockBuilder block(graph, "middle");
  TensorRef x = unpadded(block, block.input(tower.stream()), tower, at + "last");
  if (!taps.empty()) {
    const TensorRef stacked = block.concatenate(at + "intermediate", taps, 2);
    const TensorRef read = unpadded(block, stacked, tower, at + "intermediate");
    x = block.concatenate(at + "features", {x, read}, 3);
  }
  x = block.linear("multi_modal_projector", x, graph.hidden, {.bias = true});
  block.view("cross_attention_states", x,
             graph.shared.at(static_cast<std::size_t>(kCrossAttentionStates.index)).shape);
  block.publish(kCrossAttentionStates);
  block.padding_mask("cross_attention_mask", kCrossAttentionMask, kTextMask);
  block.padding_mask("full_text_row_masked_out_mask", kCrossAttentionMask, kReadsPictures);
  // Eight rows more than the head has: the picture's own token.
  const std::string root = model.text.names.root;
  constexpr std::int64_t kOwnTokens = 8;
  x = block.embedding(root + ".embed_tokens", kTokenIds, graph.vocabulary + kOwnTokens,
                      graph.hidden);
  block.rotary_table(root + ".rotary_emb", kCos, kSin);
  graph.segments.push_back({1, {block.finish(x)}});
}

// MllamaTextCrossAttention: keys and values of the pictures, spread over all heads before the keys
// are normed.
TensorRef cross_attention(const Graph& graph, BlockBuilder& block, TensorRef x,
                          const AttentionShape& heads) {
  const std::string module = "cross_attn";
  const std::int64_t keys =
      graph.shared.at(static_cast<std::size_t>(kCrossAttentionStates.index)).shape.at(1);
  TensorRef q = block.linear(module + ".q_proj", x, heads.heads * heads.head_dim);
  q = block.rms_norm(module + ".q_norm", block.heads(module + ".q_heads", q, heads.heads));
  const auto spread = [&](const std::string& name) {
    TensorRef y =
        block.linear(name + "_proj", kCrossAttentionStates, heads.kv_heads * heads.head_dim);
    y = block.heads(name + "_heads", y, heads.kv_heads);
    if (heads.heads == heads.kv_heads) return y;
    y = block.view(name + "_repeat", y, {graph.batch, heads.heads, keys, heads.head_dim});
    block.last().kind = OperatorKind::expand;
    return block.contiguous(name + "_repeated", y);
  };
  TensorRef k = spread(module + ".k");
  const TensorRef v = spread(module + ".v");
  k = block.rms_norm(module + ".k_norm", k);
  const TensorRef mixed = block.masked_attention(module, q, k, v, kTextMask,
                                                 {.heads = heads.heads,
                                                  .kv_heads = heads.heads,
                                                  .head_dim = heads.head_dim,
                                                  .causal = false,
                                                  .dropout = heads.dropout,
                                                  .softmax_in_fp32 = true,
                                                  .bias = true});
  return block.linear(module + ".o_proj", mixed, graph.hidden);
}

// MllamaCrossAttentionDecoderLayer.
Block cross_layer(const Graph& graph, const LlamaLike& llama) {
  BlockBuilder block(graph, llama.root + ".layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, llama.sizes.hidden});
  TensorRef h = block.rms_norm("input_layernorm", x);
  h = cross_attention(graph, block, h, llama.attention.shape);
  h = gated(block, h, "cross_attn_attn_gate", true);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.rms_norm("post_attention_layernorm", middle);
  h = add_gated_mlp(block, h, llama.mlp);
  h = block.multiply("full_text_row_masked_out_mask", h, kReadsPictures);
  h = gated(block, h, "cross_attn_mlp_gate", true);
  return block.finish(block.add("residual_mlp", middle, h));
}

TextStack read_text(ConfigReader& config) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 128256,
                                .hidden = 4096,
                                .layers = 40,
                                .heads = 32,
                                .kv_heads = 8,
                                .head_dim = {},
                                .max_sequence = 131072,
                                .tied = false},
                               14336);
  llama.attention.shape.dropout = config.probability({"dropout"}, 0.0);
  llama.attention.shape.repeats_for_flash = true;
  const std::vector<std::int64_t> cross = config.whole_list(
      {"cross_attention_layers"}, {3, 8, 13, 18, 23, 28, 33, 38}, {0, kLayerLimits.most});
  LlamaPlan plan;
  plan.kinds.assign(static_cast<std::size_t>(llama.sizes.layers), 0);
  for (const std::int64_t layer : cross) {
    if (layer < llama.sizes.layers) plan.kinds[static_cast<std::size_t>(layer)] = kCross;
  }
  plan.llama = llama;
  TextStack text =
      text_stack_of(plan, {.root = "language_model.model", .head = "language_model.lm_head"});
  llama.root = text.names.root;
  text.layer = [llama](const Graph& graph, int kind) {
    return kind == kCross ? cross_layer(graph, llama) : llama_layer(graph, llama, 0);
  };
  return text;
}

// The data set's pictures may have any size; the network reads tiles.
PicturesOfSample pictures_in(const Mllama& model, const SampleShape& sample) {
  const Tower& tower = model.tower;
  const bool given = sample.height > 0 && sample.width > 0;
  const std::int64_t tiles = checked_multiply(tower.pictures, tower.tiles);
  return {{tiles, tower.channels, tower.side, tower.side},
          given ? sample.height : tower.side,
          given ? sample.width : tower.side,
          model.images};
}

void add_shared(Graph& graph, const Mllama& model) {
  const Tower& tower = model.tower;
  const std::int64_t keys =
      checked_multiply(checked_multiply(model.images, tower.tiles), tower.tokens());
  const std::int64_t row = checked_multiply(tower.tiles, tower.padded());
  const std::vector<TensorInfo> tensors = {
      {"aspect_ratio_ids", {tower.pictures, 1}, ElementKind::token_ids},
      {"aspect_ratio_mask", {tower.pictures, tower.tiles}, ElementKind::token_ids},
      {"cross_attention_mask",
       {graph.batch, graph.sequence, model.images, tower.tiles},
       ElementKind::token_ids},
      {"aspect_ratio_attention_mask", {tower.pictures, 1, row, row}, ElementKind::real},
      {"text_cross_attention_mask", {graph.batch, 1, graph.sequence, keys}, ElementKind::real},
      {"full_text_row_masked_out_mask", {graph.batch, graph.sequence, 1}, ElementKind::real},
      {"cross_attention_states", {graph.batch, keys, graph.hidden}, ElementKind::real},
  };
  for (const TensorInfo& tensor : tensors) {
    graph.shared.push_back(tensor);
    if (tensor.kind == ElementKind::token_ids) graph.batch_tensors.push_back(tensor);
  }
}

}  // namespace

Graph build_mllama(ConfigReader& config, const SampleShape& sample) {
  Mllama model;
  model.images = std::max<std::int64_t>(1, sample.images);
  ConfigReader text_config = config.table("text_config");
  model.text = read_text(text_config);
  config.adopt(text_config);
  ConfigReader vision_config = config.table("vision_config");
  model.tower = read_tower(vision_config, pictures_of(sample));
  config.adopt(vision_config);

  Graph graph = start_picture_text(config, model.text, sample, pictures_in(model, sample));
  add_shared(graph, model);
  graph.segments.push_back({1, {embed(graph, model.tower)}});
  const std::vector<TensorRef> taps = add_local_layers(graph, model.tower);
  add_global_layers(graph, model.tower);
  add_middle(graph, model, taps);
  add_text_layers(graph, model.text);
  return graph;
}

}  // namespace steelyard::model
