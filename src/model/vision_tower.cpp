#include "model/vision_tower.h"

#include <fmt/format.h>

namespace steelyard::model {

namespace {

TensorRef attention(BlockBuilder& block, TensorRef x, const PreNormLayer& layer,
                    const std::string& module) {
  const LinearOptions biased{.bias = true};
  const auto projected = [&](const char* part) {
    const std::string name = module + "." + part;
    return block.heads(name + "_heads", block.linear(name + "_proj", x, layer.hidden, biased),
                       layer.heads);
  };
  const TensorRef q = projected("q");
  const TensorRef k = projected("k");
  const TensorRef v = projected("v");
  const TensorRef mixed = block.attention(module, q, k, v,
                                          {.heads = layer.heads,
                                           .kv_heads = layer.heads,
                                           .head_dim = layer.hidden / layer.heads,
                                           .causal = layer.causal,
                                           .dropout = layer.dropout,
                                           .softmax_in_fp32 = layer.wide_softmax,
                                           .casts_probabilities = layer.wide_softmax,
                                           .scales_queries = !layer.wide_softmax});
  return block.linear(module + ".out_proj", mixed, layer.hidden, biased);
}

TensorRef feed_forward(BlockBuilder& block, TensorRef x, const PreNormLayer& layer,
                       const std::string& module) {
  TensorRef h = block.linear(module + ".fc1", x, layer.inner, {.bias = true});
  h = block.activation(module + ".activation_fn", h, layer.activation);
  return block.linear(module + ".fc2", h, layer.hidden, {.bias = true});
}

}  // namespace

TensorRef add_pre_norm_layer(BlockBuilder& block, TensorRef x, const PreNormLayer& layer,
                             const std::string& at) {
  TensorRef h = block.layer_norm(at + "layer_norm1", x);
  h = attention(block, h, layer, at + "self_attn");
  const TensorRef middle = block.add(at + "residual_attention", x, h);
  h = block.layer_norm(at + "layer_norm2", middle);
  h = feed_forward(block, h, layer, at + "mlp");
  return block.add(at + "residual_mlp", middle, h);
}

VisionTower read_vision_tower(ConfigReader& config, const std::string& root,
                              const std::string& fallback) {
  VisionTower tower;
  const std::string type =
      config.choice({"model_type"}, fallback, {"clip_vision_model", "siglip_vision_model"});
  const bool clip = type == "clip_vision_model";
  tower.root = root;
  tower.class_token = clip;
  tower.layer.wide_softmax = !clip;
  tower.pools = !clip && config.flag({"vision_use_head"}, true);
  tower.layer.hidden = config.whole({"hidden_size"}, 768, kHiddenLimits);
  tower.layer.inner = config.whole({"intermediate_size"}, 3072, kWideLimits);
  tower.layer.heads = config.whole({"num_attention_heads"}, 12, kHeadLimits);
  tower.layer.activation =
      config.activation({"hidden_act"}, clip ? "quick_gelu" : "gelu_pytorch_tanh");
  tower.layer.dropout = config.probability({"attention_dropout"}, 0.0);
  tower.layers = config.whole({"num_hidden_layers"}, 12, kLayerLimits);
  tower.patch = config.whole({"patch_size"}, clip ? 32 : 16, kSideLimits);
  tower.side = config.whole({"image_size"}, 224, kSideLimits);
  tower.channels = config.whole({"num_channels"}, 3, kChannelLimits);
  (void)divided_heads(config, tower.layer.hidden, tower.layer.heads, "hidden_size",
                      "num_attention_heads");
  return tower;
}

void set_pictures(ConfigReader& config, VisionTower& tower, const SampleShape& sample,
                  std::int64_t pictures) {
  tower.pictures = pictures;
  const bool given = sample.height > 0 && sample.width > 0;
  tower.height = given ? sample.height : tower.side;
  tower.width = given ? sample.width : tower.side;
  if (tower.patches() > 0) return;
  config.reject("patch_size", fmt::format("{}", tower.patch),
                fmt::format("at most the picture's {} x {} pixels", tower.height, tower.width));
  tower.height = tower.width = tower.patch;
}

void add_vision_layers(Graph& graph, const VisionTower& tower, TensorRef pixels,
                       std::int64_t count) {
  const std::string embeddings = tower.root + ".embeddings";
  BlockBuilder block(graph, "embed");
  TensorRef x =
      block.conv(embeddings + ".patch_embedding", pixels, tower.layer.hidden,
                 {.kernel = tower.patch, .stride = tower.patch, .bias = !tower.class_token});
  x = block.view(embeddings + ".patches", x, {tower.pictures, tower.patches(), tower.layer.hidden},
                 true);
  if (tower.class_token) {
    x = block.class_tokens(embeddings + ".class_tokens", x, {embeddings + ".class_embedding"},
                           true);
  }
  // One for each token of the configuration's own size; pictures of another size interpolate.
  const std::int64_t positions =
      tower.side / tower.patch * (tower.side / tower.patch) + (tower.class_token ? 1 : 0);
  const TensorRef table = block.position_embedding(embeddings + ".position_embedding", positions,
                                                   tower.layer.hidden, 1, tower.tokens());
  x = block.add(embeddings + ".add_positions", x, table);
  if (tower.class_token) x = block.layer_norm(tower.root + ".pre_layrnorm", x);
  graph.segments.push_back({1, {block.finish(x)}});
  if (count == 0) return;
  BlockBuilder layer(graph, tower.root + ".encoder.layers");
  const TensorRef in = layer.input(tower.stream());
  graph.segments.push_back({count, {layer.finish(add_pre_norm_layer(layer, in, tower.layer))}});
}

void add_unread_layers(BlockBuilder& block, TensorRef x, const VisionTower& tower,
                       std::int64_t first) {
  const std::size_t from = block.weight_count();
  for (std::int64_t i = first; i < tower.layers; ++i) {
    const std::string at = fmt::format("{}.encoder.layers.{}.", tower.root, i);
    x = add_pre_norm_layer(block, x, tower.layer, at);
  }
  if (tower.class_token) x = block.first_token(tower.root + ".pooled", x);
  x = block.layer_norm(tower.root + ".post_layernorm", x);
  if (tower.pools) (void)add_pooling(block, x, tower);
  block.leave_unread(from);
}

TensorRef add_post_norm(BlockBuilder& block, TensorRef x, const VisionTower& tower) {
  return block.layer_norm(tower.root + ".post_layernorm", x);
}

TensorRef add_pooling(BlockBuilder& block, TensorRef x, const VisionTower& tower) {
  if (tower.class_token) return add_post_norm(block, block.first_token("first_token", x), tower);
  const std::string head = tower.root + ".head";
  x = block.probe_attention(head + ".attention", x, tower.layer.heads, head + ".probe");
  TensorRef h = block.layer_norm(head + ".layernorm", x);
  h = feed_forward(block, h, tower.layer, head + ".mlp");
  return block.first_token(head + ".pooled", block.add(head + ".residual", x, h));
}

}  // namespace steelyard::model
