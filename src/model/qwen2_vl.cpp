// Qwen2-VL and Qwen2.5-VL (transformers: modeling_qwen2_vl.py, modeling_qwen2_5_vl.py). Pictures of
// any size lie as rows of patches one behind the other; four patches become one token, and a
// token's position is three numbers. Qwen2.5-VL reads windows of patches in most of its layers.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "model/decoder_families.h"
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
  // Qwen3-VL: rows of a table of positions that is interpolated, layers whose results are lent to
  // the first layers of the text, one sequence per picture and pair of frames.
  std::int64_t positions = 0;
  std::vector<std::int64_t> lent = {};
  bool apart = false;
  std::string root = "visual", first = "fc1", second = "fc2", act = "act";
  std::string merger_norm = "ln_q", merger_first = "mlp.0", merger_act = "mlp.1",
              merger_second = "mlp.2";
  // Of the micro-batch.
  std::int64_t pictures = 1, grid_frames = 1, grid_height = 1, grid_width = 1;

  [[nodiscard]] std::int64_t patches() const {
    return checked_multiply(checked_multiply(pictures, grid_frames),
                            checked_multiply(grid_height, grid_width));
  }
  [[nodiscard]] Shape stream() const {
    const std::int64_t rows = apart ? pictures * grid_frames : 1;
    return {rows, patches() / rows, hidden};
  }
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
                                           .packed = tower.apart ? 0 : tower.sequences(whole)});
  return block.linear("attn.proj", mixed, hidden, {.bias = true});
}

Block patch_layer(const Graph& graph, const PatchTower& tower, bool whole) {
  BlockBuilder block(graph, tower.root + ".blocks");
  const TensorRef x = block.input(tower.stream());
  TensorRef h = norm(block, "norm1", x, tower);
  h = patch_attention(block, h, tower, whole);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = norm(block, "norm2", middle, tower);
  const MlpPart mlp{.intermediate = tower.inner,
                    .activation = tower.activation,
                    .bias = true,
                    .module = "mlp",
                    .up = tower.gated ? "up_proj" : tower.first,
                    .down = tower.gated ? "down_proj" : tower.second,
                    .act = tower.gated ? "act_fn" : tower.act};
  h = tower.gated ? add_gated_mlp(block, h, mlp) : add_plain_mlp(block, h, mlp);
  return block.finish(block.add("residual_mlp", middle, h));
}

// fast_pos_embed_interpolate: four rows of the table for each patch, weighed and summed, then put
// in the order of the patches.
TensorRef interpolated_positions(BlockBuilder& block, const PatchTower& tower) {
  const std::string name = tower.root + ".pos_embed";
  TensorRef sum;
  for (const char* corner : {".0", ".1", ".2", ".3"}) {
    TensorRef row =
        block.position_embedding(name, tower.positions, tower.hidden, 1, tower.patches());
    if (sum.index >= 0) block.share_weight(name + ".0");
    block.last().name = name + corner;
    const TensorRef weights = block.values(name + ".weights" + corner, {1, tower.patches(), 1});
    row = block.multiply(name + ".weighed" + corner, row, weights);
    sum = sum.index >= 0 ? block.add(name + ".sum" + corner, sum, row) : row;
  }
  return block.contiguous(name + ".order",
                          block.view(name + ".permute", sum, tower.stream(), true));
}

// Patches as rows; with windows they are put in the windows' order.
void add_patches(Graph& graph, const PatchTower& tower) {
  const std::string embed = tower.root + ".patch_embed";
  const std::int64_t values = tower.channels * tower.frames * tower.patch * tower.patch;
  BlockBuilder block(graph, "embed");
  TensorRef x = block.view(embed + ".pixels", kPixelValues,
                           {tower.patches(), tower.channels, values / tower.channels});
  x = block.patches_of(embed + ".proj", x,
                       {tower.hidden, tower.channels, tower.frames, tower.patch, tower.patch},
                       {tower.patches(), tower.hidden, 1}, tower.positions > 0);
  x = block.view(embed, x, tower.stream());
  if (tower.positions > 0) {
    x = block.add(tower.root + ".add_positions", x, interpolated_positions(block, tower));
  }
  if (tower.window > 0) x = block.gather_tokens("visual.window_order", x, tower.stream());
  block.wide_rotary_table(tower.root + ".rotary_pos_emb", kPatchCos, kPatchSin);
  graph.segments.push_back({1, {block.finish(x)}});
}

// Patches side by side through a network of two layers.
TensorRef merged(BlockBuilder& block, const PatchTower& tower, const std::string& module,
                 TensorRef x, bool norms_joined) {
  const std::int64_t together = tower.merge * tower.merge;
  const std::int64_t wide = tower.hidden * together;
  const Shape joined = {1, tower.patches() / together, wide};
  const std::string name = module + ".";
  if (!norms_joined) x = norm(block, name + tower.merger_norm, x, tower);
  x = block.view(name + "view", x, joined);
  if (norms_joined) x = norm(block, name + tower.merger_norm, x, tower);
  x = block.linear(name + tower.merger_first, x, wide, {.bias = true});
  x = block.activation(name + tower.merger_act, x, ActivationKind::gelu);
  return block.linear(name + tower.merger_second, x, tower.out, {.bias = true});
}

TensorRef merged_patches(BlockBuilder& block, const PatchTower& tower) {
  const TensorRef x =
      merged(block, tower, tower.root + ".merger", block.input(tower.stream()), false);
  if (tower.window == 0) return x;
  return block.gather_tokens("visual.own_order", x, block.shape(x));
}

constexpr std::int32_t kFirstLent = 6;  // among the shared tensors

// What the layer before gave, merged, for a layer of the text.
Block lend(const Graph& graph, const PatchTower& tower, std::int32_t index) {
  BlockBuilder block(graph, "middle");
  const TensorRef x = block.input(tower.stream());
  (void)merged(block, tower, fmt::format("{}.deepstack_merger_list.{}", tower.root, index), x,
               true);
  block.publish({true, kFirstLent + index});
  return block.finish(x);
}

void add_patch_layers(Graph& graph, const PatchTower& tower) {
  std::vector<int> kinds(static_cast<std::size_t>(tower.layers), tower.window > 0 ? 0 : 1);
  for (const std::int64_t layer : tower.whole_layers) {
    if (layer < tower.layers) kinds[static_cast<std::size_t>(layer)] = 1;
  }
  std::size_t done = 0;
  const auto add_up_to = [&](std::size_t end) {
    const auto at = [&](std::size_t i) { return kinds.begin() + static_cast<std::ptrdiff_t>(i); };
    if (end > done) {
      add_layers(graph, std::vector<int>(at(done), at(end)),
                 [&](int kind) { return patch_layer(graph, tower, kind == 1); });
    }
    done = end;
  };
  for (std::size_t i = 0; i < tower.lent.size(); ++i) {
    add_up_to(static_cast<std::size_t>(tower.lent[i]) + 1);
    graph.segments.push_back({1, {lend(graph, tower, static_cast<std::int32_t>(i))}});
  }
  add_up_to(kinds.size());
}

// _deepstack_process: the lent features are added to the pictures' tokens.
Block with_lent(Block layer, std::int32_t index) {
  const TensorRef out = layer.output;
  const Shape shape = layer.tensors.at(static_cast<std::size_t>(out.index)).shape;
  Operator& op = layer.operators.emplace_back();
  op.kind = OperatorKind::scatter;
  op.name = "deepstack";
  op.inputs = {out, {true, kFirstLent + index}};
  layer.output = {false, static_cast<std::int32_t>(layer.tensors.size())};
  op.outputs = {layer.output};
  layer.tensors.push_back({op.name, shape, ElementKind::real});
  return layer;
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
  for (std::size_t i = 0; i < tower.lent.size(); ++i) {
    graph.shared.push_back({fmt::format("deepstack.{}", i),
                            {1, tokens * sample.batch, text.sizes.hidden},
                            ElementKind::real});
  }
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

namespace {

PatchTower read_third(ConfigReader& config, const std::vector<std::int64_t>& lent) {
  PatchTower tower;
  tower.layers = config.whole({"depth"}, 27, kLayerLimits);
  tower.heads = config.whole({"num_heads"}, 16, kHeadLimits);
  tower.channels = config.whole({"in_channels"}, 3, kChannelLimits);
  tower.patch = config.whole({"patch_size"}, 16, kSideLimits);
  tower.merge = config.whole({"spatial_merge_size"}, 2, kSideLimits);
  tower.frames = config.whole({"temporal_patch_size"}, 2, kSideLimits);
  tower.hidden = config.whole({"hidden_size"}, 1152, kHiddenLimits);
  tower.inner = config.whole({"intermediate_size"}, 4304, kWideLimits);
  tower.out = config.whole({"out_hidden_size"}, 3584, kHiddenLimits);
  tower.positions = config.whole({"num_position_embeddings"}, 2304, kPositionLimits);
  tower.activation = config.activation({"hidden_act"}, "gelu_pytorch_tanh");
  if (!config.is_empty_list("deepstack_visual_indexes")) {
    tower.lent = config.whole_list({"deepstack_visual_indexes"}, lent,
                                   {.least = 0, .most = tower.layers - 1});
  }
  if (!std::ranges::is_sorted(tower.lent)) {
    config.reject("deepstack_visual_indexes", "layers out of order", "layers in their order");
    tower.lent.clear();
  }
  tower.apart = true;
  tower.root = "model.visual";
  tower.first = tower.merger_first = "linear_fc1";
  tower.second = tower.merger_second = "linear_fc2";
  tower.act = tower.merger_act = "act_fn";
  tower.merger_norm = "norm";
  return tower;
}

Graph with_third_tower(ConfigReader& config, const SampleShape& sample, LlamaPlan plan,
                       const std::vector<std::int64_t>& lent) {
  ConfigReader vision = config.table("vision_config");
  const PatchTower tower = read_third(vision, lent);
  config.adopt(vision);
  constexpr int kLender = 256;  // one more than the lender of a layer, above the bits of its kind
  const std::size_t lenders = std::min(tower.lent.size(), plan.kinds.size());
  for (std::size_t i = 0; i < lenders; ++i) plan.kinds[i] += kLender * static_cast<int>(i + 1);
  TextStack text = text_stack_of(plan, {.root = "model.language_model"});
  text.own_positions = true;
  text.layer = [layer = text.layer](const Graph& graph, int kind) {
    Block block = layer(graph, kind % kLender);
    return kind < kLender ? block : with_lent(std::move(block), kind / kLender - 1);
  };
  return finish_qwen(config, sample, text, tower);
}

}  // namespace

Graph build_qwen3_vl(ConfigReader& config, const SampleShape& sample) {
  ConfigReader nested = config.table("text_config");
  LlamaPlan plan = plan_qwen3(nested);
  config.adopt(nested);
  return with_third_tower(config, sample, std::move(plan), {8, 16, 24});
}

Graph build_qwen3_5(ConfigReader& config, const SampleShape& sample) {
  ConfigReader nested = config.table("text_config");
  LlamaPlan plan = plan_qwen3_5(nested);
  config.adopt(nested);
  return with_third_tower(config, sample, std::move(plan), {});
}

}  // namespace steelyard::model
