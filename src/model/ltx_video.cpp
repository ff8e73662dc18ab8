// LTXVideoTransformer3DModel (diffusers 0.32: models/transformers/transformer_ltx.py): tokens of
// the video, modulated by a table plus the time; the text is read by cross attention.
#include <tuple>

#include "model/diffusion_transformer_parts.h"

namespace steelyard::model {

namespace {

// The autoencoder of LTX-Video makes one latent of 32 x 32 pixels and 8 frames; the pipeline asks
// for 128 tokens of text (pipeline_ltx.py, max_sequence_length).
constexpr std::int64_t kSide = 32, kTime = 8, kTextTokens = 128;
constexpr std::int64_t kTimeChannels = 256;

struct Ltx {
  std::int64_t heads = 32, head_dim = 64, layers = 28, outputs = 128, patch = 1, patch_time = 1;
  std::int64_t cross = 2048;
  Latents latents;
  TextShape text;
  bool attention_bias = true, out_bias = true, affine = false;
  ActivationKind activation = ActivationKind::gelu_tanh;
  [[nodiscard]] std::int64_t hidden() const { return heads * head_dim; }
  [[nodiscard]] std::int64_t tokens() const {
    return latents.frames / patch_time * (latents.height / patch) * (latents.width / patch);
  }
};

struct Shared {
  TensorRef modulation, time, text, cos, sin;
};

Ltx read(ConfigReader& config, const SampleShape& sample) {
  Ltx net;
  net.heads = config.whole({"num_attention_heads"}, 32, kHeadLimits);
  net.head_dim = config.whole({"attention_head_dim"}, 64, kHiddenLimits);
  net.layers = config.whole({"num_layers"}, 28, kLayerLimits);
  net.patch = config.whole({"patch_size"}, 1, kSideLimits);
  net.patch_time = config.whole({"patch_size_t"}, 1, kSideLimits);
  net.cross = config.whole({"cross_attention_dim"}, 2048, kHiddenLimits);
  net.text = {kTextTokens, config.whole({"caption_channels"}, 4096, kHiddenLimits)};
  net.attention_bias = config.flag({"attention_bias"}, true);
  net.out_bias = config.flag({"attention_out_bias"}, true);
  net.affine = config.flag({"norm_elementwise_affine"}, false);
  net.activation = feed_forward_activation(config);
  (void)config.choice({"qk_norm"}, "rms_norm_across_heads", {"rms_norm_across_heads"});
  // Without a size: the pipeline's own, 512 x 704 pixels, 161 frames.
  Latents own{161 / kTime + 1, 512 / kSide, 704 / kSide, 128, kSide, kTime};
  own.channels = config.whole({"in_channels"}, 128, kChannelLimits);
  net.outputs = output_channels(config, 128, own.channels);
  net.latents = latents_of(sample, own);
  check_latent_patches(config, net.latents, net.patch);
  if (net.cross != net.hidden()) {
    config.reject("cross_attention_dim", std::to_string(net.cross),
                  std::to_string(net.hidden()) + ", the width of the projected text");
  }
  return net;
}

void add_embed(Graph& graph, const Ltx& net, const Shared& shared) {
  BlockBuilder block(graph, "embed");
  TensorRef x =
      block.view("patches", kLatents, {graph.batch, net.tokens(), net.latents.channels}, true);
  x = block.contiguous("rows", x);
  x = block.linear("proj_in", x, net.hidden(), {.bias = true});
  block.wide_rotary_table("rope", shared.cos, shared.sin);
  const TensorRef steps =
      block.timestep_embedding("time_embed.time_proj", kTimeSteps, kTimeChannels);
  const TensorRef time = add_two_linears(
      block, steps, {"time_embed.emb.timestep_embedder", net.hidden(), net.hidden()});
  block.share(time, shared.time);
  TensorRef y = block.activation("time_embed.silu", shared.time, ActivationKind::silu);
  y = block.linear("time_embed.linear", y, 6 * net.hidden(), {.bias = true});
  block.share(y, shared.modulation);
  const TensorRef text = add_two_linears(
      block, kText, {"caption_projection", net.hidden(), net.hidden(), ActivationKind::gelu_tanh});
  block.share(text, shared.text);
  graph.segments.push_back({1, {block.finish(x)}});
}

TensorRef attend(BlockBuilder& block, const std::string& name, TensorRef x, TensorRef from,
                 const Ltx& net, const Shared& shared, bool turns) {
  const LinearOptions projection{.bias = net.attention_bias};
  TensorRef q = block.linear(name + ".to_q", x, net.hidden(), projection);
  TensorRef k = block.linear(name + ".to_k", from, net.hidden(), projection);
  TensorRef v = block.linear(name + ".to_v", from, net.hidden(), projection);
  q = block.rms_norm_of_input(name + ".norm_q", q);
  k = block.rms_norm_of_input(name + ".norm_k", k);
  if (turns) std::tie(q, k) = block.rotary_pairs(name + ".rotary", q, k, shared.cos, shared.sin);
  q = block.heads(name + ".q_heads", q, net.heads);
  k = block.heads(name + ".k_heads", k, net.heads);
  v = block.heads(name + ".v_heads", v, net.heads);
  const TensorRef y = block.attention(
      name, q, k, v,
      {.heads = net.heads, .kv_heads = net.heads, .head_dim = net.head_dim, .causal = false});
  return block.linear(name + ".to_out.0", y, net.hidden(), {.bias = net.out_bias});
}

Block layer(const Graph& graph, const Ltx& net, const Shared& shared) {
  BlockBuilder block(graph, "transformer_blocks");
  TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  TensorRef h = block.rms_norm_of_input("norm1", x, net.affine);
  TensorRef table = block.view("ada_values", shared.modulation, {graph.batch, 6, net.hidden()});
  table = block.add_weight("scale_shift_table", table, {6, net.hidden()});
  table = block.view("ada_row", table, {graph.batch, 6 * net.hidden()});
  const auto parts = block.chunk("unbind", table, 6);
  h = block.modulate("modulate_attention", h, parts[1], parts[0]);
  h = attend(block, "attn1", h, h, net, shared, true);
  h = block.multiply("gate_msa", h, parts[2]);
  x = block.add("residual_attention", x, h);
  h = attend(block, "attn2", x, shared.text, net, shared, false);
  x = block.add("residual_cross", x, h);
  h = block.rms_norm_of_input("norm2", x, net.affine);
  h = block.modulate("modulate_mlp", h, parts[4], parts[3]);
  h = add_feed_forward(block, "ff", h, 4 * net.hidden(), net.activation);
  h = block.multiply("gate_mlp", h, parts[5]);
  return block.finish(block.add("residual_ff", x, h));
}

void add_head(Graph& graph, const Ltx& net, const Shared& shared) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  TensorRef table = block.concatenate_last("embedded_timestep", shared.time, shared.time);
  table = block.view("scale_shift", table, {graph.batch, 2, net.hidden()});
  table = block.add_weight("scale_shift_table", table, {2, net.hidden()});
  table = block.view("scale_shift_row", table, {graph.batch, 2 * net.hidden()});
  const auto parts = block.chunk("shift_scale", table, 2);
  x = block.layer_norm("norm_out", x, {.weight = false, .bias = false});
  x = block.modulate("modulate_out", x, parts[1], parts[0]);
  x = block.linear("proj_out", x, net.outputs, {.bias = true});
  graph.segments.push_back({1, {finish_prediction(block, x)}});
}

}  // namespace

Graph build_ltx_video(ConfigReader& config, const SampleShape& sample) {
  const Ltx net = read(config, sample);
  Graph graph = start_diffusion_graph(config, sample, net.latents, net.text, net.outputs);
  if (config.first_error()) return graph;
  graph.hidden = net.hidden();
  graph.layers = net.layers;
  Shared shared;
  shared.modulation = add_shared(graph, "temb", {graph.batch, 6 * net.hidden()});
  shared.time = add_shared(graph, "embedded_timestep", {graph.batch, net.hidden()});
  shared.text = add_shared(graph, "caption", {graph.batch, net.text.tokens, net.hidden()});
  shared.cos = add_shared(graph, "cos", {graph.batch, net.tokens(), net.hidden()});
  shared.sin = add_shared(graph, "sin", {graph.batch, net.tokens(), net.hidden()});
  add_embed(graph, net, shared);
  graph.segments.push_back({net.layers, {layer(graph, net, shared)}});
  add_head(graph, net, shared);
  return graph;
}

}  // namespace steelyard::model
