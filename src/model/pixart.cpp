// PixArtTransformer2DModel and DiTTransformer2DModel (diffusers 0.32:
// models/transformers/pixart_transformer_2d.py, dit_transformer_2d.py, models/attention.py
// BasicTransformerBlock with ada_norm_single and ada_norm_zero).
#include "model/diffusion_family.h"
#include "model/diffusion_transformer_parts.h"

namespace steelyard::model {

namespace {

constexpr std::int64_t kTimeChannels = 256;
// Tokens of T5 (pipeline_pixart_alpha.py: 120; pipeline_pixart_sigma.py: 300).
constexpr std::int64_t kAlphaTokens = 120, kSigmaTokens = 300;
constexpr LinearOptions kBiased{.bias = true};

struct Pixart {
  std::int64_t heads = 16, head_dim = 72, layers = 28, patch = 2, outputs = 8, classes = 1000;
  std::int64_t cross = 1152, side = 128;
  bool attention_bias = true, additional = false, projects_text = false, affine = false;
  double dropout = 0.0;
  ActivationKind activation = ActivationKind::gelu_tanh;
  Latents latents;
  TextShape text;
  [[nodiscard]] std::int64_t hidden() const { return heads * head_dim; }
  [[nodiscard]] std::int64_t tokens() const {
    return latents.height / patch * (latents.width / patch);
  }
  [[nodiscard]] LayerNormOptions norm() const { return {.weight = affine, .bias = affine}; }
};

struct Shared {
  TensorRef modulation, time, text;
};

Pixart read(ConfigReader& config, const SampleShape& sample, std::int64_t own_side,
            const char* norm) {
  Pixart net;
  net.heads = config.whole({"num_attention_heads"}, 16, kHeadLimits);
  net.head_dim = config.whole({"attention_head_dim"}, 72, kHiddenLimits);
  net.layers = config.whole({"num_layers"}, 28, kLayerLimits);
  net.patch = config.whole({"patch_size"}, 2, kSideLimits);
  net.classes = config.whole({"num_embeds_ada_norm"}, 1000, kLabelLimits);
  net.attention_bias = config.flag({"attention_bias"}, true);
  net.affine = config.flag({"norm_elementwise_affine"}, false);
  net.dropout = config.probability({"dropout"}, 0.0);
  net.activation = feed_forward_activation(config);
  (void)config.choice({"norm_type"}, norm, {norm});
  net.side = config.whole({"sample_size"}, own_side, kSideLimits);
  const std::int64_t inputs = config.whole({"in_channels"}, 4, kChannelLimits);
  // PixArt's class has 8 of its own, the noise and its variance; DiT's none.
  const bool single = std::string_view(norm) == "ada_norm_single";
  net.outputs = output_channels(config, single ? 8 : inputs, inputs);
  net.latents = latents_of(sample, {1, net.side, net.side, inputs});
  check_latent_patches(config, net.latents, net.patch);
  return net;
}

TensorRef embed_patches(BlockBuilder& block, const Pixart& net, std::int64_t samples) {
  TensorRef x = block.conv("pos_embed.proj", kLatents, net.hidden(),
                           {.kernel = net.patch, .stride = net.patch, .bias = true});
  x = block.view("pos_embed.patches", x, {samples, net.tokens(), net.hidden()}, true);
  const std::int64_t rows = net.side / net.patch * (net.side / net.patch);
  return block.add_buffer("pos_embed.pos_embed", x, {1, rows, net.hidden()});
}

// AdaLayerNormSingle: the time, and the size of the picture where the model was told it.
void add_single_norm(BlockBuilder& block, const Pixart& net, const Shared& shared) {
  const std::string emb = "adaln_single.emb.";
  const TensorRef steps =
      block.timestep_embedding("adaln_single.time_proj", kTimeSteps, kTimeChannels);
  TensorRef time =
      add_two_linears(block, steps, {emb + "timestep_embedder", net.hidden(), net.hidden()});
  if (net.additional) {
    const std::int64_t third = net.hidden() / 3;
    const TensorRef size =
        add_two_linears(block, steps, {emb + "resolution_embedder", third, third});
    const TensorRef ratio =
        add_two_linears(block, steps, {emb + "aspect_ratio_embedder", third, third});
    TensorRef both = block.concatenate_last(emb + "height_and_width", size, size);
    both = block.concatenate_last(emb + "conditions", both, ratio);
    time = block.add(emb + "sum", time, both);
  }
  block.share(time, shared.time);
  TensorRef y = block.activation("adaln_single.silu", shared.time, ActivationKind::silu);
  y = block.linear("adaln_single.linear", y, 6 * net.hidden(), kBiased);
  block.share(y, shared.modulation);
}

TensorRef attend(BlockBuilder& block, const std::string& name, TensorRef x, TensorRef from,
                 const Pixart& net) {
  const LinearOptions projection{.bias = net.attention_bias};
  const auto projected = [&](const char* part, TensorRef in) {
    const TensorRef y = block.linear(name + "." + part, in, net.hidden(), projection);
    return block.heads(name + "." + part + "_heads", y, net.heads);
  };
  const TensorRef q = projected("to_q", x);
  const TensorRef k = projected("to_k", from);
  const TensorRef v = projected("to_v", from);
  const TensorRef y = block.attention(
      name, q, k, v,
      {.heads = net.heads, .kv_heads = net.heads, .head_dim = net.head_dim, .causal = false});
  return block.dropout(name + ".to_out.1",
                       block.linear(name + ".to_out.0", y, net.hidden(), kBiased), net.dropout);
}

Block single_layer(const Graph& graph, const Pixart& net, const Shared& shared) {
  BlockBuilder block(graph, "transformer_blocks");
  TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  TensorRef table = block.view("rows", shared.modulation, {graph.batch, 6, net.hidden()});
  table = block.add_weight("scale_shift_table", table, {6, net.hidden()});
  table = block.view("row", table, {graph.batch, 6 * net.hidden()});
  const auto parts = block.chunk("chunk", table, 6);
  TensorRef h = block.layer_norm("norm1", x, net.norm());
  h = block.modulate("modulate_attention", h, parts[1], parts[0]);
  h = attend(block, "attn1", h, h, net);
  x = block.add("residual_attention", block.multiply("gate_msa", h, parts[2]), x);
  x = block.add("residual_cross", attend(block, "attn2", x, shared.text, net), x);
  h = block.layer_norm("norm2", x, net.norm());
  h = block.modulate("modulate_mlp", h, parts[4], parts[3]);
  h = add_feed_forward(block, "ff", h, 4 * net.hidden(), net.activation);
  h = block.multiply("gate_mlp", h, parts[5]);
  return block.finish(block.add("residual_ff", h, x));
}

void add_single_head(Graph& graph, const Pixart& net, const Shared& shared) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  TensorRef table = block.concatenate_last("embedded_timestep", shared.time, shared.time);
  table = block.view("rows", table, {graph.batch, 2, net.hidden()});
  table = block.add_weight("scale_shift_table", table, {2, net.hidden()});
  table = block.view("row", table, {graph.batch, 2 * net.hidden()});
  const auto parts = block.chunk("chunk", table, 2);
  x = block.layer_norm("norm_out", x, {.weight = false, .bias = false});
  x = block.modulate("modulate_out", x, parts[1], parts[0]);
  x = block.linear("proj_out", x, net.patch * net.patch * net.outputs, kBiased);
  graph.segments.push_back({1, {finish_prediction(block, x)}});
}

// CombinedTimestepLabelEmbeddings, which every layer of DiT has for itself.
TensorRef label_embedding(BlockBuilder& block, const Pixart& net) {
  const std::string emb = "norm1.emb.";
  const TensorRef steps = block.timestep_embedding(emb + "time_proj", kTimeSteps, kTimeChannels);
  const TensorRef time =
      add_two_linears(block, steps, {emb + "timestep_embedder", net.hidden(), net.hidden()});
  // One class more: none, for guidance without a classifier.
  const TensorRef label = block.embedding(emb + "class_embedder.embedding_table", kTimeSteps,
                                          net.classes + 1, net.hidden());
  return block.add(emb + "sum", time, label);
}

Block labelled_layer(const Graph& graph, const Pixart& net) {
  BlockBuilder block(graph, "transformer_blocks");
  TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  const auto parts =
      add_modulation(block, "norm1.linear", label_embedding(block, net), 6, net.hidden());
  TensorRef h = block.layer_norm("norm1.norm", x, {.weight = false, .bias = false});
  h = block.modulate("norm1", h, parts[1], parts[0]);
  h = attend(block, "attn1", h, h, net);
  x = block.add("residual_attention", block.multiply("gate_msa", h, parts[2]), x);
  h = block.layer_norm("norm3", x, net.norm());
  h = block.modulate("modulate_mlp", h, parts[4], parts[3]);
  h = add_feed_forward(block, "ff", h, 4 * net.hidden(), net.activation);
  h = block.multiply("gate_mlp", h, parts[5]);
  return block.finish(block.add("residual_ff", h, x));
}

}  // namespace

Graph build_pixart(ConfigReader& config, const SampleShape& sample) {
  Pixart net = read(config, sample, 128, "ada_norm_single");
  net.additional = config.flag({"use_additional_conditions"}, net.side == 128);
  net.cross = config.whole({"cross_attention_dim"}, 1152, kHiddenLimits);
  net.projects_text = config.has("caption_channels");
  const std::int64_t width =
      config.optional_whole({"caption_channels"}, kHiddenLimits).value_or(net.cross);
  // PixArt-Sigma, which reads longer texts, is not told the size of the picture.
  const bool sigma = config.has("use_additional_conditions") && !net.additional;
  net.text = {sigma ? kSigmaTokens : kAlphaTokens, width};
  Graph graph = start_diffusion_graph(config, sample, net.latents, net.text, net.outputs);
  if (config.first_error()) return graph;
  graph.hidden = net.hidden();
  graph.layers = net.layers;
  Shared shared;
  shared.modulation = add_shared(graph, "temb", {graph.batch, 6 * net.hidden()});
  shared.time = add_shared(graph, "embedded_timestep", {graph.batch, net.hidden()});
  shared.text = kText;
  if (net.projects_text) {
    shared.text = add_shared(graph, "caption", {graph.batch, net.text.tokens, net.hidden()});
  }
  BlockBuilder embed(graph, "embed");
  const TensorRef x = embed_patches(embed, net, graph.batch);
  add_single_norm(embed, net, shared);
  if (net.projects_text) {
    embed.share(add_two_linears(
                    embed, kText,
                    {"caption_projection", net.hidden(), net.hidden(), ActivationKind::gelu_tanh}),
                shared.text);
  }
  graph.segments.push_back({1, {embed.finish(x)}});
  graph.segments.push_back({net.layers, {single_layer(graph, net, shared)}});
  add_single_head(graph, net, shared);
  return graph;
}

Graph build_dit(ConfigReader& config, const SampleShape& sample) {
  const Pixart net = read(config, sample, 32, "ada_norm_zero");
  Graph graph = start_diffusion_graph(config, sample, net.latents, {}, net.outputs);
  if (config.first_error()) return graph;
  graph.hidden = net.hidden();
  graph.layers = net.layers;
  const LayerNormOptions plain{.weight = false, .bias = false};
  BlockBuilder embed(graph, "embed");
  graph.segments.push_back({1, {embed.finish(embed_patches(embed, net, graph.batch))}});
  graph.segments.push_back({net.layers, {labelled_layer(graph, net)}});
  BlockBuilder head(graph, "head");
  TensorRef h = head.input({graph.batch, net.tokens(), net.hidden()});
  // The first layer's embedding of time and class, once more; its weights are counted there.
  TensorRef condition = head.timestep_embedding("conditioning", kTimeSteps, net.hidden());
  condition = head.activation("silu", condition, ActivationKind::silu);
  condition = head.linear("proj_out_1", condition, 2 * net.hidden(), kBiased);
  const auto parts = head.chunk("chunk", condition, 2);
  h = head.modulate("norm_out", head.layer_norm("norm_out.norm", h, plain), parts[1], parts[0]);
  h = head.linear("proj_out_2", h, net.patch * net.patch * net.outputs, kBiased);
  graph.segments.push_back({1, {finish_prediction(head, h)}});
  return graph;
}

}  // namespace steelyard::model
