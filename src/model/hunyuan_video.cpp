// HunyuanVideoTransformer3DModel (diffusers 0.32:
// models/transformers/transformer_hunyuan_video.py): as FLUX with weights for text and for the
// video, then layers over both; the text first goes through layers of its own, and only the video
// turns.
#include <tuple>

#include "model/diffusion_family.h"
#include "model/diffusion_transformer_parts.h"

namespace steelyard::model {

namespace {

// The autoencoder: 8 x 8 pixels, 4 frames; 256 tokens of LLaMA (pipeline_hunyuan_video.py).
constexpr std::int64_t kSide = 8, kTime = 4, kTextTokens = 256;
constexpr LinearOptions kBiased{.bias = true};
constexpr LayerNormOptions kPlain{.weight = false, .bias = false};

struct Hunyuan {
  std::int64_t heads = 24, head_dim = 128, layers = 20, single_layers = 40, refiner_layers = 2;
  std::int64_t patch = 2, patch_time = 1, outputs = 16;
  std::int64_t inner = 0;  // feed-forward width
  bool guidance = true;
  Latents latents;
  TextShape text;
  [[nodiscard]] std::int64_t hidden() const { return heads * head_dim; }
  [[nodiscard]] std::int64_t video() const {
    return latents.frames / patch_time * (latents.height / patch) * (latents.width / patch);
  }
  [[nodiscard]] std::int64_t tokens() const { return text.tokens + video(); }
  [[nodiscard]] std::vector<std::pair<std::string, std::int64_t>> streams() const {
    return {{"text", text.tokens}, {"video", video()}};
  }
  [[nodiscard]] AttentionShape attention() const {
    return {.heads = heads, .kv_heads = heads, .head_dim = head_dim, .causal = false};
  }
};

struct Shared {
  TensorRef time, cos, sin;
};

Hunyuan read(ConfigReader& config, const SampleShape& sample) {
  Hunyuan net;
  net.heads = config.whole({"num_attention_heads"}, 24, kHeadLimits);
  net.head_dim = config.whole({"attention_head_dim"}, 128, kHiddenLimits);
  net.layers = config.whole({"num_layers"}, 20, kLayerLimits);
  net.single_layers = config.whole({"num_single_layers"}, 40, kLayerLimits);
  net.refiner_layers = config.whole({"num_refiner_layers"}, 2, kLayerLimits);
  net.patch = config.whole({"patch_size"}, 2, kSideLimits);
  net.patch_time = config.whole({"patch_size_t"}, 1, kSideLimits);
  net.guidance = config.flag({"guidance_embeds"}, true);
  const double ratio = config.real({"mlp_ratio"}, 4.0, 0.01, 1024.0);
  net.inner = static_cast<std::int64_t>(static_cast<double>(net.hidden()) * ratio);
  net.text = {kTextTokens, config.whole({"text_embed_dim"}, 4096, kHiddenLimits),
              config.whole({"pooled_projection_dim"}, 768, kHiddenLimits)};
  (void)config.choice({"qk_norm"}, "rms_norm", {"rms_norm"});
  // Without a size: the pipeline's own, 720 x 1280 pixels and 129 frames.
  Latents own{129 / kTime + 1, 720 / kSide, 1280 / kSide, 16, kSide, kTime};
  own.channels = config.whole({"in_channels"}, 16, kChannelLimits);
  net.outputs = output_channels(config, 16, own.channels);
  net.latents = latents_of(sample, own);
  check_latent_patches(config, net.latents, net.patch);
  return net;
}

TensorRef plain_heads(BlockBuilder& block, const std::string& name, TensorRef x,
                      const Hunyuan& net) {
  return block.heads(name + "_heads", block.linear(name, x, net.hidden(), kBiased), net.heads);
}

// HunyuanVideoIndividualTokenRefinerBlock over the text.
TensorRef refine(BlockBuilder& block, const std::string& name, TensorRef x, TensorRef time,
                 const Hunyuan& net) {
  TensorRef h = block.layer_norm(name + ".norm1", x);
  const TensorRef q = plain_heads(block, name + ".attn.to_q", h, net);
  const TensorRef k = plain_heads(block, name + ".attn.to_k", h, net);
  const TensorRef v = plain_heads(block, name + ".attn.to_v", h, net);
  h = block.attention(name + ".attn", q, k, v, net.attention());
  h = block.linear(name + ".attn.to_out.0", h, net.hidden(), kBiased);
  const auto gates = add_modulation(block, name + ".norm_out.linear", time, 2, net.hidden());
  x = block.add(name + ".residual1", x, block.multiply(name + ".gate_msa", h, gates[0]));
  h = block.layer_norm(name + ".norm2", x);
  h = add_feed_forward(block, name + ".ff", h, net.inner, ActivationKind::silu);
  return block.add(name + ".residual2", x, block.multiply(name + ".gate_mlp", h, gates[1]));
}

TensorRef embed_text(BlockBuilder& block, const Hunyuan& net) {
  const std::string root = "context_embedder.";
  const TensorRef steps = block.timestep_embedding(root + "time_proj", kTimeSteps, 256);
  const std::string embed = root + "time_text_embed.";
  TensorRef time =
      add_two_linears(block, steps, {embed + "timestep_embedder", net.hidden(), net.hidden()});
  const TensorRef mean = block.first_token(root + "pooled", kText);  // their mean: as large
  const TensorRef text =
      add_two_linears(block, mean, {embed + "text_embedder", net.hidden(), net.hidden()});
  time = block.add(embed + "sum", time, text);
  TensorRef x = block.linear(root + "proj_in", kText, net.hidden(), kBiased);
  for (std::int64_t i = 0; i < net.refiner_layers; ++i) {
    x = refine(block, root + "token_refiner.refiner_blocks." + std::to_string(i), x, time, net);
  }
  return x;
}

void add_embed(Graph& graph, const Hunyuan& net, const Shared& shared) {
  BlockBuilder block(graph, "embed");
  block.share(add_time_text_embedding(block, "time_text_embed", net.hidden(), net.guidance),
              shared.time);
  block.wide_rotary_table("rope", shared.cos, shared.sin);
  const Shape grid = {graph.batch, net.hidden(),
                      net.latents.frames / net.patch_time * (net.latents.height / net.patch),
                      net.latents.width / net.patch};
  const Shape window = {net.hidden(), net.latents.channels, net.patch_time, net.patch, net.patch};
  TensorRef x = block.conv_as("x_embedder.proj", kLatents, window, grid);
  x = block.view("x_embedder", x, {graph.batch, net.video(), net.hidden()}, true);
  const TensorRef text = embed_text(block, net);
  graph.segments.push_back({1, {block.finish(block.concatenate("streams", text, x))}});
}

TensorRef in_heads(BlockBuilder& block, const char* linear, const char* norm, TensorRef x,
                   const Hunyuan& net) {
  const TensorRef y = plain_heads(block, std::string("attn.") + linear, x, net);
  return norm == nullptr ? y : block.rms_norm_of_input(std::string("attn.") + norm, y);
}

Block double_layer(const Graph& graph, const Hunyuan& net, const Shared& shared) {
  BlockBuilder block(graph, "transformer_blocks");
  const TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  const auto video = add_modulation(block, "norm1.linear", shared.time, 6, net.hidden());
  const auto text = add_modulation(block, "norm1_context.linear", shared.time, 6, net.hidden());
  auto parts = block.split_tokens("streams1", block.layer_norm("norm1.norm", x, kPlain),
                                  net.streams(), true);
  TensorRef p = block.modulate("norm1", parts[1], video[1], video[0]);
  TensorRef t = block.modulate("norm1_context", parts[0], text[1], text[0]);
  TensorRef q = in_heads(block, "to_q", "norm_q", p, net);
  TensorRef k = in_heads(block, "to_k", "norm_k", p, net);
  TensorRef v = in_heads(block, "to_v", nullptr, p, net);
  std::tie(q, k) = block.rotary_pairs("attn.rotary", q, k, shared.cos, shared.sin);
  q = block.concatenate_rows("attn.q", q, in_heads(block, "add_q_proj", "norm_added_q", t, net));
  k = block.concatenate_rows("attn.k", k, in_heads(block, "add_k_proj", "norm_added_k", t, net));
  v = block.concatenate_rows("attn.v", v, in_heads(block, "add_v_proj", nullptr, t, net));
  parts = block.split_tokens("attn.streams", block.attention("attn", q, k, v, net.attention()),
                             net.streams(), false);
  p = block.linear("attn.to_out.0", parts[1], net.hidden(), kBiased);
  t = block.linear("attn.to_add_out", parts[0], net.hidden(), kBiased);
  p = block.multiply("gate_msa", p, video[2]);
  t = block.multiply("c_gate_msa", t, text[2]);
  const TensorRef middle = block.add_parts("residual_attention", x, {t, p});
  parts = block.split_tokens("streams2", block.layer_norm("norm2", middle, kPlain), net.streams(),
                             true);
  p = block.modulate("modulate_mlp", parts[1], video[4], video[3]);
  t = block.modulate("c_modulate_mlp", parts[0], text[4], text[3]);
  p = add_feed_forward(block, "ff", p, net.inner, ActivationKind::gelu_tanh);
  t = add_feed_forward(block, "ff_context", t, net.inner, ActivationKind::gelu_tanh);
  p = block.multiply("gate_mlp", p, video[5]);
  t = block.multiply("c_gate_mlp", t, text[5]);
  return block.finish(block.add_parts("residual_ff", middle, {t, p}));
}

// Text and video are put together anew in each layer, and the halves of the normed tokens too.
Block single_layer(const Graph& graph, const Hunyuan& net, const Shared& shared) {
  BlockBuilder block(graph, "single_transformer_blocks");
  TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  const auto parts = add_modulation(block, "norm.linear", shared.time, 3, net.hidden());
  const auto joined = [&](const std::string& name, TensorRef whole) {
    const auto streams = block.split_tokens(name + ".streams", whole, net.streams(), false);
    return block.concatenate(name, streams[0], streams[1]);
  };
  x = joined("joint", x);
  TensorRef h = block.layer_norm("norm.norm", x, kPlain);
  h = block.modulate("norm", h, parts[1], parts[0]);
  TensorRef mlp = block.linear("proj_mlp", h, net.inner, kBiased);
  mlp = block.activation("act_mlp", mlp, ActivationKind::gelu_tanh);
  h = joined("attn.joint", h);
  TensorRef q = in_heads(block, "to_q", "norm_q", h, net);
  TensorRef k = in_heads(block, "to_k", "norm_k", h, net);
  const TensorRef v = in_heads(block, "to_v", nullptr, h, net);
  std::tie(q, k) = block.rotary_pairs("attn.rotary", q, k, shared.cos, shared.sin);
  h = joined("attn.result", block.attention("attn", q, k, v, net.attention()));
  h = block.linear("proj_out", block.concatenate_last("attn_and_mlp", h, mlp), net.hidden(),
                   kBiased);
  return block.finish(block.add("residual", block.multiply("gate", h, parts[2]), x));
}

}  // namespace

Graph build_hunyuan_video(ConfigReader& config, const SampleShape& sample) {
  const Hunyuan net = read(config, sample);
  Graph graph = start_diffusion_graph(config, sample, net.latents, net.text, net.outputs);
  if (config.first_error()) return graph;
  graph.hidden = net.hidden();
  graph.layers = net.layers + net.single_layers;
  Shared shared;
  shared.time = add_shared(graph, "temb", {graph.batch, net.hidden()});
  shared.cos = add_shared(graph, "cos", {net.video(), net.head_dim});
  shared.sin = add_shared(graph, "sin", {net.video(), net.head_dim});
  add_embed(graph, net, shared);
  graph.segments.push_back({net.layers, {double_layer(graph, net, shared)}});
  graph.segments.push_back({net.single_layers, {single_layer(graph, net, shared)}});
  BlockBuilder head(graph, "head");
  const TensorRef x = head.input({graph.batch, net.tokens(), net.hidden()});
  const TensorRef video = head.split_tokens("streams", x, net.streams(), false)[1];
  const std::int64_t cube = net.patch_time * net.patch * net.patch;
  graph.segments.push_back({1, {finish_diffusion(head, {video, shared.time, cube * net.outputs})}});
  return graph;
}

}  // namespace steelyard::model
