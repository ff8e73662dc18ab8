// Qwen2-VL and Qwen2.5-VL (transformers: modeling_qwen2_vl.py, modeling_qwen2_5_vl.py). Pictures of
// any size lie as rows of patches one behind the other; four patches become one token, and a
// token's position is three numbers. Qwen2.5-VL reads windows of patches in most of its layers.
#include <fmt/format.h>

#include <algorithm>

#include "model/image_parts.h"
#include "model/llama_parts.h"
#include "model/picture_text.h"

namespace steelyard::model {

namespace {

constexpr std::int64_t kUsualSide = 448;  // pixels, where neither job nor configuration says one

constexpr TensorRef kPatchCos{true, 4};
constexpr TensorRef kPatchSin{true, 5};

struct PatchTower {
  std::int64_t hidden = 1280, inner = 5120, heads = 16, layers = 32, out = 3584;
  std::int64_t channels = 3, patch = 14, frames = 2, merge = 2, window = 0;
  std::vector<std::int64_t> whole_layers;  // of those with windows: the ones that read a picture
  ActivationKind activation = ActivationKind::quick_gelu;
  bool gated = false;  // RMSNorm and a gated feed-forward network
  // Of the micro-batch.
  std::int64_t pictures = 1, grid_frames = 1, grid_height = 1, grid_width = 1;

  [[nodiscard]] std::int64_t patches() const {
    return checked_multiply(checked_multiply(pictures, grid_frames),
                            checked_multiply(grid_height, grid_width));
  }
  [[nodiscard]] Shape stream() const { return {1, patches(), hidden}; }
  [[nodiscard]] std::int64_t sequences(bool whole) const;
};

// cu_seqlens: a sequence per picture and pair of frames, or per window in it.
std::int64_t PatchTower::sequences(bool whole) const {
  const std::int64_t grids = pictures * grid_frames;
  if (whole || window == 0) return grids;
  const std::int64_t side = std::max<std::int64_t>(1, window / merge / patch);
  const auto windows = [&](std::int64_t grid) { return (grid / merge + side - 1) / side; };
  return grids * windows(grid_height) * windows(grid_width);
}

void read_shared_keys(ConfigReader& config, PatchTower& tower) {
  tower.layers = config.whole({"depth"}, 32, kLayerLimits);
  tower.heads = config.whole({"num_heads"}, 16, kHeadLimits);
  tower.channels = config.whole({"in_channels", "in_chans"}, 3, kChannelLimits);
  tower.patch = config.whole({"patch_size", "spatial_patch_size"}, 14, kSideLimits);
  tower.merge = config.whole({"spatial_merge_size"}, 2, kSideLimits);
  tower.frames = config.whole({"temporal_patch_size"}, 2, kSideLimits);
}

PatchTower read_first(ConfigReader& config) {
  PatchTower tower;
  read_shared_keys(config, tower);
  tower.hidden = config.whole({"embed_dim"}, 1280, kHiddenLimits);
  const double ratio = config.real({"mlp_ratio"}, 4.0, 0.01, 1024.0);
  tower.inner = static_cast<std::int64_t>(static_cast<double>(tower.hidden) * ratio);
  tower.out = config.whole({"hidden_size"}, 3584, kHiddenLimits);
  tower.activation = config.activation({"hidden_act"}, "quick_gelu");
  return tower;
}

PatchTower read_second(ConfigReader& config) {
  PatchTower tower;
  read_shared_keys(config, tower);
  tower.gated = true;
  tower.hidden = config.whole({"hidden_size"}, 3584, kHiddenLimits);
  tower.inner = config.whole({"intermediate_size"}, 3420, kWideLimits);
  tower.out = config.whole({"out_hidden_size"}, 3584, kHiddenLimits);
  tower.window = config.whole({"window_size"}, 112, kSideLimits);
  tower.whole_layers = config.whole_list({"fullatt_block_indexes"}, {7, 15, 23, 31},
                                         {.least = 0, .most = kLayerLimits.most});
  tower.activation = config.activation({"hidden_act"}, "silu");
  return tower;
}

// The processor resizes both sides to multiples of a token's pixels (smart_resize).
void set_grid(PatchTower& tower, const SampleShape& sample) {
  const std::int64_t pixels = tower.patch * tower.merge;
  const auto patches = [&](std::int64_t side) {
    const std::int64_t own = side > 0 ? side : kUsualSide;
    return std::max<std::int64_t>(1, (own + pixels / 2) / pixels) * tower.merge;
  };
  tower.pictures = pictures_of(sample);
  tower.grid_height = patches(sample.height);
  tower.grid_width = patches(sample.width);
  tower.grid_frames = (std::max<std::int64_t>(1, sample.frames) + tower.frames - 1) / tower.frames;
}

TensorRef norm(BlockBuilder& block, const std::string& name, TensorRef x, const PatchTower& tower) {
  return tower.gated ? block.rms_norm(name, x) : block.layer_norm(name, x);
}

TensorRef patch_attention(BlockBuilder& block, TensorRef x, const PatchTower& tower, bool whole) {
  const std::int64_t hidden = tower.hidden;
  const TensorRef fused = block.linear("attn.qkv", x, 3 * hidden, {.bias = true});
  const auto qkv = block.split("attn.split", fused, {{"q", hidden}, {"k", hidden}, {"v", hidden}});
  const TensorRef q = block.heads("attn.q_heads", qkv[0], tower.heads);
  const TensorRef k = block.heads("attn.k_heads", qkv[1], tower.heads);
  const TensorRef v = block.heads("attn.v_heads", qkv[2], tower.heads);
  const auto turned = block.wide_rotary("attn.rotary", q, k, kPatchCos, kPatchSin);
  const TensorRef mixed = block.attention("attn", turned.first, turned.second, v,
                                          {.heads = tower.heads,
                                           .kv_heads = tower.heads,
                                           .head_dim = hidden / tower.heads,
                                           .causal = false,
                                           .softmax_in_fp32 = true,
                                           .packed = tower.sequences(whole)});
  return block.linear("attn.proj", mixed, hidden, {.bias = true});
}

Block patch_layer(const Graph& graph, const PatchTower& tower, bool whole) {
  BlockBuilder block(graph, "visual.blocks");
  const TensorRef x = block.input(tower.stream());
  TensorRef h = norm(block, "norm1", x, tower);
  h = patch_attention(block, h, tower, whole);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = norm(block, "norm2", middle, tower);
  const MlpPart mlp{.intermediate = tower.inner,
                    .activation = tower.activation,
                    .bias = true,
                    .module = "mlp",
                    .up = tower.gated ? "up_proj" : "fc1",
                    .down = tower.gated ? "down_proj" : "fc2",
                    .act = tower.gated ? "act_fn" : "act"};
  h = tower.gated ? add_gated_mlp(block, h, mlp) : add_plain_mlp(block, h, mlp);
  return block.finish(block.add("residual_mlp", middle, h));
}

// Patches as rows; with windows they are put in the windows' order.
void add_patches(Graph& graph, const PatchTower& tower) {
  const std::int64_t values = tower.channels * tower.frames * tower.patch * tower.patch;
  BlockBuilder block(graph, "embed");
  TensorRef x = block.view("visual.patch_embed.pixels", kPixelValues,
                           {tower.patches(), tower.channels, values / tower.channels});
  x = block.patches_of("visual.patch_embed.proj", x,
                       {tower.hidden, tower.channels, tower.frames, tower.patch, tower.patch},
                       {tower.patches(), tower.hidden, 1}, false);
  x = block.view("visual.patch_embed", x, tower.stream());
  if (tower.window > 0) x = block.gather_tokens("visual.window_order", x, tower.stream());
  block.wide_rotary_table("visual.rotary_pos_emb", kPatchCos, kPatchSin);
  graph.segments.push_back({1, {block.finish(x)}});
}

void add_patch_layers(Graph& graph, const PatchTower& tower) {
  std::vector<int> kinds(static_cast<std::size_t>(tower.layers), tower.window > 0 ? 0 : 1);
  for (const std::int64_t layer : tower.whole_layers) {
    if (layer < tower.layers) kinds[static_cast<std::size_t>(layer)] = 1;
  }
  add_layers(graph, kinds, [&](int kind) { return patch_layer(graph, tower, kind == 1); });
}

// Four patches side by side through a network of two layers.
TensorRef merged_patches(BlockBuilder& block, const PatchTower& tower) {
  const std::int64_t together = tower.merge * tower.merge;
  const std::int64_t wide = tower.hidden * together;
  TensorRef x = norm(block, "visual.merger.ln_q", block.input(tower.stream()), tower);
  x = block.view("visual.merger.view", x, {1, tower.patches() / together, wide});
  x = block.linear("visual.merger.mlp.0", x, wide, {.bias = true});
  x = block.activation("visual.merger.mlp.1", x, ActivationKind::gelu);
  x = block.linear("visual.merger.mlp.2", x, tower.out, {.bias = true});
  if (tower.window == 0) return x;
  return block.gather_tokens("visual.own_order", x, block.shape(x));
}

TextStack read_text(ConfigReader& config, const SizeDefaults& defaults, std::int64_t inner) {
  ConfigReader nested = config.table("text_config");
  const bool flat = !config.has("text_config");
  ConfigReader& own = flat ? config : nested;
  LlamaLike llama = read_llama(own, defaults, inner);
  llama.attention.qkv_bias = true;
  llama.attention.sections = true;
  llama.attention.shape.repeats_for_flash = true;
  const std::vector<int> kinds = qwen_windows(own, llama);
  if (!flat) config.adopt(nested);
  if (!flat && config.has("tie_word_embeddings")) {
    llama.sizes.tied = config.flag({"tie_word_embeddings"}, false);
  }
  TextStack text = text_stack_of({std::move(llama), kinds}, {});
  text.sections = true;
  return text;
}

Graph finish_qwen(ConfigReader& config, const SampleShape& sample, const TextStack& text,
                  PatchTower tower) {
  (void)divided_heads(config, tower.hidden, tower.heads, "vision_config.hidden_size",
                      "vision_config.num_heads");
  if (tower.out != text.sizes.hidden) {
    config.reject("vision_config", fmt::format("features of {}", tower.out),
                  fmt::format("hidden_size, {}", text.sizes.hidden));
  }
  set_grid(tower, sample);
  const std::int64_t values = tower.channels * tower.frames * tower.patch * tower.patch;
  const std::int64_t tokens = tower.patches() / (tower.merge * tower.merge) / sample.batch;
  Graph graph = start_picture_text(config, text, sample,
                                   {.pixels = {tower.patches(), values},
                                    .height = tower.grid_height * tower.patch,
                                    .width = tower.grid_width * tower.patch,
                                    .tokens = tokens});
  graph.frames = sample.frames;
  const Shape table = {1, tower.patches(), tower.hidden / tower.heads};
  graph.shared.push_back({"patch_cos", table, ElementKind::real});
  graph.shared.push_back({"patch_sin", table, ElementKind::real});
  add_patches(graph, tower);
  add_patch_layers(graph, tower);
  BlockBuilder block(graph, "middle");
  const TensorRef features = merged_patches(block, tower);
  graph.segments.push_back({1, {block.finish(add_merged_embedding(graph, block, text, features))}});
  add_text_layers(graph, text);
  return graph;
}

const SizeDefaults kTextSizes{.vocabulary = 152064,
                              .hidden = 8192,
                              .layers = 80,
                              .heads = 64,
                              .kv_heads = 8,
                              .head_dim = {},
                              .max_sequence = 32768,
                              .tied = false};
constexpr std::int64_t kTextInner = 29568;

}  // namespace

Graph build_qwen2_vl(ConfigReader& config, const SampleShape& sample) {
  const TextStack text = read_text(config, kTextSizes, kTextInner);
  ConfigReader vision = config.table("vision_config");
  const PatchTower tower = read_first(vision);
  config.adopt(vision);
  return finish_qwen(config, sample, text, tower);
}

Graph build_qwen2_5_vl(ConfigReader& config, const SampleShape& sample) {
  const TextStack text = read_text(config, kTextSizes, kTextInner);
  ConfigReader vision = config.table("vision_config");
  const PatchTower tower = read_second(vision);
  config.adopt(vision);
  return finish_qwen(config, sample, text, tower);
}

}  // namespace steelyard::model
