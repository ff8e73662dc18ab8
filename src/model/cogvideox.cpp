// CogVideoXTransformer3DModel (diffusers 0.32: models/transformers/cogvideox_transformer_3d.py,
// CogVideoXAttnProcessor2_0): text and video in one sequence, norms modulated by the time.
#include <tuple>

#include "model/diffusion_transformer_parts.h"

namespace steelyard::model {

namespace {

struct CogVideo {
  std::int64_t heads = 30, head_dim = 64, layers = 30, patch = 2, patch_time = 0, outputs = 16;
  std::int64_t time_width = 512, second_time = 0;
  TextShape text;
  Latents latents;
  double dropout = 0.0;
  bool rotary = false, learned_positions = false, attention_bias = true, affine = true;
  bool patch_bias = true;
  ActivationKind activation = ActivationKind::gelu_tanh;
  [[nodiscard]] std::int64_t hidden() const { return heads * head_dim; }
  [[nodiscard]] std::int64_t slices() const {
    return patch_time > 0 ? latents.frames / patch_time : latents.frames;
  }
  [[nodiscard]] std::int64_t video() const {
    return slices() * (latents.height / patch) * (latents.width / patch);
  }
  [[nodiscard]] std::int64_t tokens() const { return text.tokens + video(); }
};

CogVideo read(ConfigReader& config, const SampleShape& sample) {
  CogVideo net;
  net.heads = config.whole({"num_attention_heads"}, 30, kHeadLimits);
  net.head_dim = config.whole({"attention_head_dim"}, 64, kHiddenLimits);
  net.layers = config.whole({"num_layers"}, 30, kLayerLimits);
  net.patch = config.whole({"patch_size"}, 2, kSideLimits);
  net.patch_time = config.optional_whole({"patch_size_t"}, kSideLimits).value_or(0);
  net.outputs = config.whole({"out_channels"}, 16, kChannelLimits);
  net.time_width = config.whole({"time_embed_dim"}, 512, kHiddenLimits);
  net.second_time = config.optional_whole({"ofs_embed_dim"}, kHiddenLimits).value_or(0);
  net.text = {config.whole({"max_text_seq_length"}, 226, kPositionLimits),
              config.whole({"text_embed_dim"}, 4096, kHiddenLimits)};
  net.dropout = config.probability({"dropout"}, 0.0);
  net.rotary = config.flag({"use_rotary_positional_embeddings"}, false);
  net.learned_positions = config.flag({"use_learned_positional_embeddings"}, false);
  net.attention_bias = config.flag({"attention_bias"}, true);
  net.affine = config.flag({"norm_elementwise_affine"}, true);
  net.patch_bias = config.flag({"patch_bias"}, true);
  net.activation = feed_forward_activation(config);
  Latents own;
  own.time = config.whole({"temporal_compression_ratio"}, 4, kSideLimits);
  own.frames = (config.whole({"sample_frames"}, 49, kPositionLimits) - 1) / own.time + 1;
  own.height = config.whole({"sample_height"}, 60, kSideLimits);
  own.width = config.whole({"sample_width"}, 90, kSideLimits);
  own.channels = config.whole({"in_channels"}, 16, kChannelLimits);
  net.latents = latents_of(sample, own);
  check_latent_patches(config, net.latents, net.patch);
  if (net.patch_time > 0 && net.latents.frames % net.patch_time != 0) {
    // The pipeline pads the latents in front.
    net.latents.frames += net.patch_time - net.latents.frames % net.patch_time;
  }
  return net;
}

struct Streams {
  TensorRef time, cos, sin;
};

// CogVideoXPatchEmbed: text and video side by side.
TensorRef embed_patches(BlockBuilder& block, const CogVideo& net, std::int64_t samples) {
  const TensorRef text = block.linear("patch_embed.text_proj", kText, net.hidden(), {.bias = true});
  TensorRef video;
  const Shape tokens = {samples, net.video(), net.hidden()};
  if (net.patch_time == 0) {
    video = block.conv("patch_embed.proj", kLatents, net.hidden(),
                       {.kernel = net.patch, .stride = net.patch, .bias = net.patch_bias});
    video = block.view("patch_embed.patches", video, tokens, true);
  } else {
    const std::int64_t cube = net.latents.channels * net.patch * net.patch * net.patch_time;
    video = block.view("patch_embed.cubes", kLatents, {samples, net.video(), cube}, true);
    video = block.contiguous("patch_embed.rows", video);
    video = block.linear("patch_embed.proj", video, net.hidden(), {.bias = true});
  }
  TensorRef x = block.concatenate("patch_embed", text, video);
  if (!net.rotary || net.learned_positions) {
    x = block.add_buffer("patch_embed.pos_embedding", x, {1, net.tokens(), net.hidden()});
  }
  return block.dropout("embedding_dropout", x, net.dropout);
}

void add_embed(Graph& graph, const CogVideo& net, const Streams& shared) {
  BlockBuilder block(graph, "embed");
  TensorRef steps = block.timestep_embedding("time_proj", kTimeSteps, net.hidden());
  TensorRef time =
      add_two_linears(block, steps, {"time_embedding", net.time_width, net.time_width});
  if (net.second_time > 0) {
    steps = block.timestep_embedding("ofs_proj", kTimeSteps, net.second_time);
    const TensorRef second =
        add_two_linears(block, steps, {"ofs_embedding", net.second_time, net.second_time});
    time = block.add("add_ofs", time, second);
  }
  block.share(time, shared.time);
  if (net.rotary) block.wide_rotary_table("rotary", shared.cos, shared.sin);
  const TensorRef x = embed_patches(block, net, graph.batch);
  graph.segments.push_back({1, {block.finish(x)}});
}

// CogVideoXLayerNormZero: the norm of both streams, each modulated; and the gate.
std::pair<TensorRef, TensorRef> norm_zero(BlockBuilder& block, const std::string& name, TensorRef x,
                                          const CogVideo& net, TensorRef time) {
  const auto parts = add_modulation(block, name + ".linear", time, 6, net.hidden());
  TensorRef h = block.layer_norm(name + ".norm", x, {.weight = net.affine, .bias = net.affine});
  h = block.modulate(name, h, parts[1], parts[0]);
  const auto streams = block.split_tokens(
      name + ".streams", h, {{"text", net.text.tokens}, {"video", net.video()}}, true);
  return {block.concatenate(name + ".joint", streams[0], streams[1]), parts[2]};
}

TensorRef attend(BlockBuilder& block, TensorRef x, const CogVideo& net, const Streams& shared) {
  const LinearOptions projection{.bias = net.attention_bias};
  const auto projected = [&](const char* part) {
    const TensorRef y = block.linear(std::string("attn1.") + part, x, net.hidden(), projection);
    return block.heads(std::string("attn1.") + part + "_heads", y, net.heads);
  };
  TensorRef q = projected("to_q");
  TensorRef k = projected("to_k");
  const TensorRef v = projected("to_v");
  q = block.layer_norm("attn1.norm_q", q);
  k = block.layer_norm("attn1.norm_k", k);
  if (net.rotary) {
    std::tie(q, k) = block.rotary_pairs("attn1.rotary", q, k, shared.cos, shared.sin);
  }
  const TensorRef y = block.attention(
      "attn1", q, k, v,
      {.heads = net.heads, .kv_heads = net.heads, .head_dim = net.head_dim, .causal = false});
  return block.linear("attn1.to_out.0", y, net.hidden(), {.bias = true});
}

Block layer(const Graph& graph, const CogVideo& net, const Streams& shared) {
  BlockBuilder block(graph, "transformer_blocks");
  const TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  auto [h, gate] = norm_zero(block, "norm1", x, net, shared.time);
  h = attend(block, h, net, shared);
  h = block.multiply("gate_msa", h, gate);
  const TensorRef middle = block.add("residual_attention", x, h);
  std::tie(h, gate) = norm_zero(block, "norm2", middle, net, shared.time);
  h = add_feed_forward(block, "ff", h, 4 * net.hidden(), net.activation);
  h = block.dropout("ff.dropout", h, net.dropout);
  h = block.multiply("gate_ff", h, gate);
  return block.finish(block.add("residual_ff", middle, h));
}

void add_head(Graph& graph, const CogVideo& net, const Streams& shared) {
  BlockBuilder block(graph, "head");
  const LayerNormOptions affine{.weight = net.affine, .bias = net.affine};
  TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  if (net.rotary) x = block.layer_norm("norm_final", x, affine);
  x = block.split_tokens("streams", x, {{"text", net.text.tokens}, {"video", net.video()}},
                         !net.rotary)[1];
  if (!net.rotary) x = block.layer_norm("norm_final", x, affine);
  const auto parts = add_modulation(block, "norm_out.linear", shared.time, 2, net.hidden());
  x = block.layer_norm("norm_out.norm", x, affine);
  x = block.modulate("norm_out", x, parts[1], parts[0]);
  const std::int64_t depth = net.patch_time > 0 ? net.patch_time : 1;
  x = block.linear("proj_out", x, net.patch * net.patch * depth * net.outputs, {.bias = true});
  graph.segments.push_back({1, {finish_prediction(block, x)}});
}

}  // namespace

Graph build_cogvideox(ConfigReader& config, const SampleShape& sample) {
  const CogVideo net = read(config, sample);
  Graph graph = start_diffusion_graph(config, sample, net.latents, net.text, net.outputs);
  if (config.first_error()) return graph;
  graph.hidden = net.hidden();
  graph.layers = net.layers;
  Streams shared;
  shared.time = add_shared(graph, "temb", {graph.batch, net.time_width});
  if (net.rotary) {
    shared.cos = add_shared(graph, "cos", {net.tokens(), net.head_dim});
    shared.sin = add_shared(graph, "sin", {net.tokens(), net.head_dim});
  }
  add_embed(graph, net, shared);
  graph.segments.push_back({net.layers, {layer(graph, net, shared)}});
  add_head(graph, net, shared);
  return graph;
}

}  // namespace steelyard::model
