// FluxTransformer2DModel (diffusers 0.32: models/transformers/transformer_flux.py,
// FluxAttnProcessor2_0): layers with weights for text and for the picture, then layers that see
// both as one sequence.
#include <tuple>

#include "model/diffusion_transformer_parts.h"

namespace steelyard::model {

namespace {

// The pipeline packs 2 x 2 latents into a token; the training scripts pad text to 512 tokens
// (train_dreambooth_lora_flux.py, max_sequence_length).
constexpr std::int64_t kPacked = 2, kTextTokens = 512;
constexpr std::int64_t kOwnSide = 128;  // latents of 1024 pixels, FLUX's own size

struct Flux {
  std::int64_t heads = 24, head_dim = 128, layers = 19, single_layers = 38, outputs = 64;
  std::int64_t inputs = 64;
  bool guidance = false;
  Latents latents;
  TextShape text;
  [[nodiscard]] std::int64_t hidden() const { return heads * head_dim; }
  [[nodiscard]] std::int64_t picture() const {
    return latents.height / kPacked * (latents.width / kPacked);
  }
  [[nodiscard]] std::int64_t tokens() const { return text.tokens + picture(); }
  [[nodiscard]] AttentionShape attention() const {
    return {.heads = heads, .kv_heads = heads, .head_dim = head_dim, .causal = false};
  }
};

struct Shared {
  TensorRef time, cos, sin;
};

constexpr LinearOptions kBiased{.bias = true};

Flux read(ConfigReader& config, const SampleShape& sample) {
  Flux net;
  net.heads = config.whole({"num_attention_heads"}, 24, kHeadLimits);
  net.head_dim = config.whole({"attention_head_dim"}, 128, kHiddenLimits);
  net.layers = config.whole({"num_layers"}, 19, kLayerLimits);
  net.single_layers = config.whole({"num_single_layers"}, 38, kLayerLimits);
  net.inputs = config.whole({"in_channels"}, 64, kChannelLimits);
  net.outputs = config.optional_whole({"out_channels"}, kChannelLimits).value_or(net.inputs);
  net.guidance = config.flag({"guidance_embeds"}, false);
  net.text = {kTextTokens, config.whole({"joint_attention_dim"}, 4096, kHiddenLimits),
              config.whole({"pooled_projection_dim"}, 768, kHiddenLimits)};
  const std::int64_t cell = kPacked * kPacked;
  if (net.inputs % cell != 0 || net.outputs % cell != 0) {
    config.reject("in_channels", std::to_string(net.inputs), "a multiple of 4: packed latents");
    net.inputs = net.outputs = cell;
  }
  net.latents = latents_of(sample, {1, kOwnSide, kOwnSide, net.inputs / cell});
  check_latent_patches(config, net.latents, kPacked);
  return net;
}

void add_embed(Graph& graph, const Flux& net, const Shared& shared) {
  BlockBuilder block(graph, "embed");
  TensorRef x = block.view("packed", kLatents, {graph.batch, net.picture(), net.inputs}, true);
  x = block.linear("x_embedder", block.contiguous("rows", x), net.hidden(), kBiased);
  block.share(add_time_text_embedding(block, "time_text_embed", net.hidden(), net.guidance),
              shared.time);
  const TensorRef text = block.linear("context_embedder", kText, net.hidden(), kBiased);
  block.wide_rotary_table("pos_embed", shared.cos, shared.sin);
  graph.segments.push_back({1, {block.finish(block.concatenate("streams", text, x))}});
}

// A projection in heads, with the norm of a head where there is one.
TensorRef in_heads(BlockBuilder& block, const std::string& linear, const std::string& norm,
                   TensorRef x, const Flux& net) {
  TensorRef y = block.linear(linear, x, net.hidden(), kBiased);
  y = block.heads(linear + "_heads", y, net.heads);
  return norm.empty() ? y : block.rms_norm_of_input(norm, y);
}

Block double_layer(const Graph& graph, const Flux& net, const Shared& shared) {
  BlockBuilder block(graph, "transformer_blocks");
  const std::vector<std::pair<std::string, std::int64_t>> streams = {{"text", net.text.tokens},
                                                                     {"picture", net.picture()}};
  const LayerNormOptions plain{.weight = false, .bias = false};
  const TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  const auto picture = add_modulation(block, "norm1.linear", shared.time, 6, net.hidden());
  const auto text = add_modulation(block, "norm1_context.linear", shared.time, 6, net.hidden());
  auto parts =
      block.split_tokens("streams1", block.layer_norm("norm1.norm", x, plain), streams, true);
  TensorRef p = block.modulate("norm1", parts[1], picture[1], picture[0]);
  TensorRef t = block.modulate("norm1_context", parts[0], text[1], text[0]);
  TensorRef q = in_heads(block, "attn.to_q", "attn.norm_q", p, net);
  TensorRef k = in_heads(block, "attn.to_k", "attn.norm_k", p, net);
  TensorRef v = in_heads(block, "attn.to_v", "", p, net);
  q = block.concatenate_rows("attn.q",
                             in_heads(block, "attn.add_q_proj", "attn.norm_added_q", t, net), q);
  k = block.concatenate_rows("attn.k",
                             in_heads(block, "attn.add_k_proj", "attn.norm_added_k", t, net), k);
  v = block.concatenate_rows("attn.v", in_heads(block, "attn.add_v_proj", "", t, net), v);
  std::tie(q, k) = block.rotary_pairs("attn.rotary", q, k, shared.cos, shared.sin);
  parts = block.split_tokens("attn.streams", block.attention("attn", q, k, v, net.attention()),
                             streams, false);
  p = block.linear("attn.to_out.0", parts[1], net.hidden(), kBiased);
  t = block.linear("attn.to_add_out", parts[0], net.hidden(), kBiased);
  p = block.multiply("gate_msa", p, picture[2]);
  t = block.multiply("c_gate_msa", t, text[2]);
  const TensorRef middle = block.add_parts("residual_attention", x, {t, p});
  parts = block.split_tokens("streams2", block.layer_norm("norm2", middle, plain), streams, true);
  p = block.modulate("modulate_mlp", parts[1], picture[4], picture[3]);
  p = add_feed_forward(block, "ff", p, 4 * net.hidden(), ActivationKind::gelu_tanh);
  p = block.multiply("gate_mlp", p, picture[5]);
  t = block.modulate("c_modulate_mlp", parts[0], text[4], text[3]);
  t = add_feed_forward(block, "ff_context", t, 4 * net.hidden(), ActivationKind::gelu_tanh);
  t = block.multiply("c_gate_mlp", t, text[5]);
  return block.finish(block.add_parts("residual_ff", middle, {t, p}));
}

Block single_layer(const Graph& graph, const Flux& net, const Shared& shared) {
  BlockBuilder block(graph, "single_transformer_blocks");
  const TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  const auto parts = add_modulation(block, "norm.linear", shared.time, 3, net.hidden());
  TensorRef h = block.layer_norm("norm.norm", x, {.weight = false, .bias = false});
  h = block.modulate("norm", h, parts[1], parts[0]);
  TensorRef mlp = block.linear("proj_mlp", h, 4 * net.hidden(), kBiased);
  mlp = block.activation("act_mlp", mlp, ActivationKind::gelu_tanh);
  TensorRef q = in_heads(block, "attn.to_q", "attn.norm_q", h, net);
  TensorRef k = in_heads(block, "attn.to_k", "attn.norm_k", h, net);
  const TensorRef v = in_heads(block, "attn.to_v", "", h, net);
  std::tie(q, k) = block.rotary_pairs("attn.rotary", q, k, shared.cos, shared.sin);
  h = block.attention("attn", q, k, v, net.attention());
  h = block.concatenate_last("attn_and_mlp", h, mlp);
  h = block.linear("proj_out", h, net.hidden(), kBiased);
  h = block.multiply("gate", h, parts[2]);
  return block.finish(block.add("residual", x, h));
}

void add_head(Graph& graph, const Flux& net, const Shared& shared) {
  BlockBuilder block(graph, "head");
  const TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  const TensorRef picture = block.split_tokens(
      "streams", x, {{"text", net.text.tokens}, {"picture", net.picture()}}, false)[1];
  graph.segments.push_back({1, {finish_diffusion(block, {picture, shared.time, net.outputs})}});
}

}  // namespace

Graph build_flux(ConfigReader& config, const SampleShape& sample) {
  const Flux net = read(config, sample);
  Graph graph = start_diffusion_graph(config, sample, net.latents, net.text,
                                      net.outputs / (kPacked * kPacked));
  if (config.first_error()) return graph;
  graph.hidden = net.hidden();
  graph.layers = net.layers + net.single_layers;
  Shared shared;
  shared.time = add_shared(graph, "temb", {graph.batch, net.hidden()});
  shared.cos = add_shared(graph, "cos", {net.tokens(), net.head_dim});
  shared.sin = add_shared(graph, "sin", {net.tokens(), net.head_dim});
  add_embed(graph, net, shared);
  graph.segments.push_back({net.layers, {double_layer(graph, net, shared)}});
  graph.segments.push_back({net.single_layers, {single_layer(graph, net, shared)}});
  add_head(graph, net, shared);
  return graph;
}

}  // namespace steelyard::model
