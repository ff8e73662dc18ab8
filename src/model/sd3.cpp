// SD3Transformer2DModel (diffusers 0.32: models/transformers/transformer_sd3.py,
// models/attention.py JointTransformerBlock, JointAttnProcessor2_0): weights for text and for the
// picture, one attention over both. Stable Diffusion 3.5 medium attends twice over the picture in
// its first layers.
#include <tuple>

#include "model/diffusion_family.h"
#include "model/diffusion_transformer_parts.h"

namespace steelyard::model {

namespace {

// 77 tokens of CLIP and 77 of T5 (train_dreambooth_sd3.py, max_sequence_length).
constexpr std::int64_t kTextTokens = 154;
constexpr LinearOptions kBiased{.bias = true};
constexpr LayerNormOptions kPlain{.weight = false, .bias = false};

struct Sd3 {
  std::int64_t heads = 18, head_dim = 64, layers = 18, patch = 2, outputs = 16, table = 96;
  bool norms_heads = false;
  std::vector<std::int64_t> dual;  // layers with a second attention
  Latents latents;
  TextShape text;
  [[nodiscard]] std::int64_t hidden() const { return heads * head_dim; }
  [[nodiscard]] std::int64_t picture() const {
    return latents.height / patch * (latents.width / patch);
  }
  [[nodiscard]] std::int64_t tokens() const { return text.tokens + picture(); }
  [[nodiscard]] std::vector<std::pair<std::string, std::int64_t>> streams() const {
    return {{"text", text.tokens}, {"picture", picture()}};
  }
};

enum Kind { kUsual = 0, kDual = 1, kLast = 2 };

Sd3 read(ConfigReader& config, const SampleShape& sample) {
  Sd3 net;
  net.heads = config.whole({"num_attention_heads"}, 18, kHeadLimits);
  net.head_dim = config.whole({"attention_head_dim"}, 64, kHiddenLimits);
  net.layers = config.whole({"num_layers"}, 18, kLayerLimits);
  net.patch = config.whole({"patch_size"}, 2, kSideLimits);
  net.table = config.whole({"pos_embed_max_size"}, 96, kSideLimits);
  if (!config.is_empty_list("dual_attention_layers")) {  // as diffusers writes "none"
    net.dual = config.whole_list({"dual_attention_layers"}, {}, {0, kLayerLimits.most});
  }
  net.norms_heads = config.has("qk_norm");
  if (net.norms_heads) (void)config.choice({"qk_norm"}, "rms_norm", {"rms_norm"});
  net.text = {kTextTokens, config.whole({"joint_attention_dim"}, 4096, kHiddenLimits),
              config.whole({"pooled_projection_dim"}, 2048, kHiddenLimits)};
  const std::int64_t side = config.whole({"sample_size"}, 128, kSideLimits);
  net.latents =
      latents_of(sample, {1, side, side, config.whole({"in_channels"}, 16, kChannelLimits)});
  net.outputs = output_channels(config, 16, net.latents.channels);
  check_latent_patches(config, net.latents, net.patch);
  const std::int64_t projected = config.whole({"caption_projection_dim"}, 1152, kHiddenLimits);
  if (projected != net.hidden()) {
    config.reject("caption_projection_dim", std::to_string(projected),
                  std::to_string(net.hidden()) + ", the width of the layers");
  }
  return net;
}

void add_embed(Graph& graph, const Sd3& net, TensorRef time) {
  BlockBuilder block(graph, "embed");
  TensorRef x = block.conv("pos_embed.proj", kLatents, net.hidden(),
                           {.kernel = net.patch, .stride = net.patch, .bias = true});
  x = block.view("pos_embed.patches", x, {graph.batch, net.picture(), net.hidden()}, true);
  x = block.add_buffer("pos_embed.pos_embed", x, {1, net.table * net.table, net.hidden()});
  block.share(add_time_text_embedding(block, "time_text_embed", net.hidden(), false), time);
  const TensorRef text = block.linear("context_embedder", kText, net.hidden(), kBiased);
  graph.segments.push_back({1, {block.finish(block.concatenate("streams", text, x))}});
}

TensorRef in_heads(BlockBuilder& block, const std::string& attention, const char* linear,
                   const char* norm, TensorRef x, const Sd3& net) {
  const std::string name = attention + "." + linear;
  TensorRef y = block.linear(name, x, net.hidden(), kBiased);
  y = block.heads(name + "_heads", y, net.heads);
  if (norm == nullptr || !net.norms_heads) return y;
  return block.rms_norm_of_input(attention + "." + norm, y);
}

AttentionShape attention_of(const Sd3& net) {
  return {.heads = net.heads, .kv_heads = net.heads, .head_dim = net.head_dim, .causal = false};
}

// Over text and picture; the text's result is empty in the last layer, which lets it go.
std::pair<TensorRef, TensorRef> attend_joint(BlockBuilder& block, TensorRef text, TensorRef picture,
                                             const Sd3& net, bool last) {
  TensorRef q = in_heads(block, "attn", "to_q", "norm_q", picture, net);
  TensorRef k = in_heads(block, "attn", "to_k", "norm_k", picture, net);
  TensorRef v = in_heads(block, "attn", "to_v", nullptr, picture, net);
  q = block.concatenate_rows("attn.q", q,
                             in_heads(block, "attn", "add_q_proj", "norm_added_q", text, net));
  k = block.concatenate_rows("attn.k", k,
                             in_heads(block, "attn", "add_k_proj", "norm_added_k", text, net));
  v = block.concatenate_rows("attn.v", v,
                             in_heads(block, "attn", "add_v_proj", nullptr, text, net));
  const TensorRef y = block.attention("attn", q, k, v, attention_of(net));
  const auto parts = block.split_tokens("attn.streams", y, net.streams(), false);
  const TensorRef p = block.linear("attn.to_out.0", parts[1], net.hidden(), kBiased);
  if (last) return {TensorRef(), p};
  return {block.linear("attn.to_add_out", parts[0], net.hidden(), kBiased), p};
}

TensorRef attend_again(BlockBuilder& block, TensorRef x, const Sd3& net) {
  const TensorRef q = in_heads(block, "attn2", "to_q", "norm_q", x, net);
  const TensorRef k = in_heads(block, "attn2", "to_k", "norm_k", x, net);
  const TensorRef v = in_heads(block, "attn2", "to_v", nullptr, x, net);
  const TensorRef y = block.attention("attn2", q, k, v, attention_of(net));
  return block.linear("attn2.to_out.0", y, net.hidden(), kBiased);
}

Block layer(const Graph& graph, const Sd3& net, TensorRef time, int kind) {
  BlockBuilder block(graph, "transformer_blocks");
  const bool last = (kind & kLast) != 0;
  const bool dual = (kind & kDual) != 0;
  const TensorRef x = block.input({graph.batch, net.tokens(), net.hidden()});
  const auto picture = add_modulation(block, "norm1.linear", time, dual ? 9 : 6, net.hidden());
  const auto text = add_modulation(block, "norm1_context.linear", time, last ? 2 : 6, net.hidden());
  auto parts = block.split_tokens("streams1", block.layer_norm("norm1.norm", x, kPlain),
                                  net.streams(), true);
  TensorRef p = block.modulate("norm1", parts[1], picture[1], picture[0]);
  TensorRef again;
  if (dual) again = block.modulate("norm1_again", parts[1], picture[7], picture[6]);
  // AdaLayerNormContinuous has the scale first, AdaLayerNormZero the shift.
  TensorRef t = block.modulate("norm1_context", parts[0], text[last ? 0 : 1], text[last ? 1 : 0]);
  std::tie(t, p) = attend_joint(block, t, p, net, last);
  p = block.multiply("gate_msa", p, picture[2]);
  if (dual) {
    again = block.multiply("gate_msa2", attend_again(block, again, net), picture[8]);
    p = block.add("both_attentions", p, again);
  }
  TensorRef middle;
  if (last) {
    const auto own = block.split_tokens("stream", x, net.streams(), true);
    middle = block.add("residual_attention", own[1], p);
    parts = {TensorRef(), block.layer_norm("norm2", middle, kPlain)};
  } else {
    t = block.multiply("c_gate_msa", t, text[2]);
    middle = block.add_parts("residual_attention", x, {t, p});
    parts = block.split_tokens("streams2", block.layer_norm("norm2", middle, kPlain), net.streams(),
                               true);
  }
  p = block.modulate("modulate_mlp", parts[1], picture[4], picture[3]);
  p = add_feed_forward(block, "ff", p, 4 * net.hidden(), ActivationKind::gelu_tanh);
  p = block.multiply("gate_mlp", p, picture[5]);
  if (last) return block.finish(block.add("residual_ff", middle, p));
  t = block.modulate("c_modulate_mlp", parts[0], text[4], text[3]);
  t = add_feed_forward(block, "ff_context", t, 4 * net.hidden(), ActivationKind::gelu_tanh);
  t = block.multiply("c_gate_mlp", t, text[5]);
  return block.finish(block.add_parts("residual_ff", middle, {t, p}));
}

}  // namespace

Graph build_sd3(ConfigReader& config, const SampleShape& sample) {
  const Sd3 net = read(config, sample);
  Graph graph = start_diffusion_graph(config, sample, net.latents, net.text, net.outputs);
  if (config.first_error()) return graph;
  graph.hidden = net.hidden();
  graph.layers = net.layers;
  const TensorRef time = add_shared(graph, "temb", {graph.batch, net.hidden()});
  add_embed(graph, net, time);
  std::vector<int> kinds(static_cast<std::size_t>(net.layers), kUsual);
  for (const std::int64_t dual : net.dual) {
    if (dual < net.layers) kinds[static_cast<std::size_t>(dual)] |= kDual;
  }
  kinds.back() |= kLast;
  add_layers(graph, kinds, [&](int kind) { return layer(graph, net, time, kind); });
  BlockBuilder head(graph, "head");
  const TensorRef x = head.input({graph.batch, net.picture(), net.hidden()});
  graph.segments.push_back(
      {1, {finish_diffusion(head, {x, time, net.patch * net.patch * net.outputs})}});
  return graph;
}

}  // namespace steelyard::model
