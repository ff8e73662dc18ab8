// WanTransformer3DModel (diffusers 0.33 to 0.35: models/transformers/transformer_wan.py): tokens of
// the video, modulated by a table plus the time; the text is read by cross attention.
#include <tuple>

#include "model/diffusion_family.h"
#include "model/diffusion_transformer_parts.h"

namespace steelyard::model {

namespace {

// Wan's autoencoder: 8 x 8 pixels, 4 frames; UMT5 with 512 tokens (pipeline_wan.py).
constexpr std::int64_t kSide = 8, kTime = 4, kTextTokens = 512;
constexpr LinearOptions kBiased{.bias = true};

struct Wan {
  std::int64_t heads = 40, head_dim = 128, layers = 40, inner = 13824, outputs = 16;
  std::int64_t time_channels = 256;
  std::vector<std::int64_t> patch = {1, 2, 2};
  bool cross_norm = true;
  Latents latents;
  TextShape text;
  [[nodiscard]] std::int64_t hidden() const { return heads * head_dim; }
  [[nodiscard]] std::int64_t tokens() const {
    return latents.frames / patch[0] * (latents.height / patch[1]) * (latents.width / patch[2]);
  }
};

struct Shared {
  TensorRef modulation, time, text, cos, sin;
};

Wan read(ConfigReader& config, const SampleShape& sample) {
  Wan net;
  net.heads = config.whole({"num_attention_heads"}, 40, kHeadLimits);
  net.head_dim = config.whole({"attention_head_dim"}, 128, kHiddenLimits);
  net.layers = config.whole({"num_layers"}, 40, kLayerLimits);
  net.inner = config.whole({"ffn_dim"}, 13824, kWideLimits);
  net.time_channels = config.whole({"freq_dim"}, 256, kHiddenLimits);
  net.patch = config.whole_list({"patch_size"}, {1, 2, 2}, kSideLimits);
  net.cross_norm = config.flag({"cross_attn_norm"}, true);
  net.text = {kTextTokens, config.whole({"text_dim"}, 4096, kHiddenLimits)};
  for (const char* key : {"image_dim", "added_kv_proj_dim"}) {
    if (!config.has(key)) continue;
    config.reject(key, "a width", "null", "models that start from a picture are not built");
  }
  if (net.patch.size() != 3 || net.patch[1] != net.patch[2]) {
    config.reject("patch_size", std::to_string(net.patch.size()) + " numbers",
                  "three: frames, height and width, the last two alike");
    net.patch = {1, 2, 2};
  }
  // Without a size: the pipeline's own, 480 x 832 pixels and 81 frames.
  Latents own{81 / kTime + 1, 480 / kSide, 832 / kSide, 16, kSide, kTime};
  own.channels = config.whole({"in_channels"}, 16, kChannelLimits);
  net.outputs = output_channels(config, 16, own.channels);
  net.latents = latents_of(sample, own);
  check_latent_patches(config, net.latents, net.patch[1]);
  return net;
}

void add_embed(Graph& graph, const Wan& net, const Shared& shared) {
  BlockBuilder block(graph, "embed");
  const Shape grid = {graph.batch, net.hidden(),
                      net.latents.frames / net.patch[0] * (net.latents.height / net.patch[1]),
                      net.latents.width / net.patch[2]};
  Shape window = {net.hidden(), net.latents.channels};
  window.insert(window.end(), net.patch.begin(), net.patch.end());
  TensorRef x = block.conv_as("patch_embedding", kLatents, window, grid);
  x = block.view("patches", x, {graph.batch, net.tokens(), net.hidden()}, true);
  block.wide_rotary_table("rope", shared.cos, shared.sin);
  const std::string condition = "condition_embedder.";
  const TensorRef steps =
      block.timestep_embedding(condition + "timesteps_proj", kTimeSteps, net.time_channels);
  block.share(
      add_two_linears(block, steps, {condition + "time_embedder", net.hidden(), net.hidden()}),
      shared.time);
  TensorRef y = block.activation(condition + "act_fn", shared.time, ActivationKind::silu);
  y = block.linear(condition + "time_proj", y, 6 * net.hidden(), kBiased);
  block.share(y, shared.modulation);
  block.share(add_two_linears(block, kText,
                              {condition + "text_embedder", net.hidden(), net.hidden(),
                               ActivationKind::gelu_tanh}),
              shared.text);
  graph.segments.push_back({1, {block.finish(block.contiguous("tokens", x))}});
}

TensorRef attend(BlockBuilder& block, const std::string& name, TensorRef x, TensorRef from,
                 const Wan& net, const Shared& shared, bool turns) {
  const auto in_heads = [&](const char* part, TensorRef y) {
    return block.heads(name + "." + part + "_heads", y, net.heads);
  };
  TensorRef q =
      block.rms_norm(name + ".norm_q", block.linear(name + ".to_q", x, net.hidden(), kBiased));
  TensorRef k =
      block.rms_norm(name + ".norm_k", block.linear(name + ".to_k", from, net.hidden(), kBiased));
  const TensorRef v = in_heads("v", block.linear(name + ".to_v", from, net.hidden(), kBiased));
  q = in_heads("q", q);
  k = in_heads("k", k);
  if (turns) std::tie(q, k) = block.rotary_pairs(name + ".rotary", q, k, shared.cos, shared.sin);
  const TensorRef y = block.attention(
      name, q, k, v,
      {.heads = net.heads, .kv_heads = net.heads, .head_dim = net.head_dim, .causal = false});
  return block.linear(name + ".to_out.0", y, net.hidden(), kBiased);
}

std::vector<TensorRef> table_rows(BlockBuilder& block, TensorRef values, std::int64_t rows,
                                  std::int64_t width) {
  const std::int64_t samples = block.shape(values).front();
  TensorRef table = block.view("rows", values, {samples, rows, width});
  table = block.add_weight("scale_shift_table", table, {1, rows, width});
  table = block.view("row", table, {samples, rows * width});
  return block.chunk("chunk", table, rows);
}

Block layer(const Graph& graph, const Wan& net, const Shared& shared) {
  BlockBuilder block(graph, "blocks");
  const LayerNormOptions plain{.weight = false, .bias = false};
  TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  const auto parts = table_rows(block, shared.modulation, 6, net.hidden());
  TensorRef h =
      block.modulate("modulate_attention", block.layer_norm("norm1", x, plain), parts[1], parts[0]);
  h = attend(block, "attn1", h, h, net, shared, true);
  x = block.add("residual_attention", x, block.multiply("gate_msa", h, parts[2]));
  h = net.cross_norm ? block.layer_norm("norm2", x) : x;
  x = block.add("residual_cross", x, attend(block, "attn2", h, shared.text, net, shared, false));
  h = block.modulate("modulate_mlp", block.layer_norm("norm3", x, plain), parts[4], parts[3]);
  h = add_feed_forward(block, "ffn", h, net.inner, ActivationKind::gelu_tanh);
  h = block.multiply("c_gate_msa", h, parts[5]);
  return block.finish(block.add("residual_ff", x, h));
}

}  // namespace

Graph build_wan(ConfigReader& config, const SampleShape& sample) {
  const Wan net = read(config, sample);
  Graph graph = start_diffusion_graph(config, sample, net.latents, net.text, net.outputs);
  if (config.first_error()) return graph;
  graph.hidden = net.hidden();
  graph.layers = net.layers;
  Shared shared;
  shared.modulation = add_shared(graph, "timestep_proj", {graph.batch, 6 * net.hidden()});
  shared.time = add_shared(graph, "temb", {graph.batch, net.hidden()});
  shared.text = add_shared(graph, "text", {graph.batch, net.text.tokens, net.hidden()});
  shared.cos = add_shared(graph, "cos", {net.tokens(), net.head_dim});
  shared.sin = add_shared(graph, "sin", {net.tokens(), net.head_dim});
  add_embed(graph, net, shared);
  graph.segments.push_back({net.layers, {layer(graph, net, shared)}});
  BlockBuilder head(graph, "head");
  TensorRef x = head.input({graph.batch, net.tokens(), net.hidden()});
  const auto parts = table_rows(head, head.concatenate_last("temb_twice", shared.time, shared.time),
                                2, net.hidden());
  x = head.layer_norm("norm_out", x, {.weight = false, .bias = false});
  x = head.modulate("modulate_out", x, parts[1], parts[0]);
  const std::int64_t cube = net.patch[0] * net.patch[1] * net.patch[2];
  x = head.linear("proj_out", x, cube * net.outputs, kBiased);
  graph.segments.push_back({1, {finish_prediction(head, x)}});
  return graph;
}

}  // namespace steelyard::model
