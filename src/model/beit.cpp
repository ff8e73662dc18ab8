// BEiT (transformers 4.57: modeling_beit.py): pre-norm layers whose scores take a learned bias by
// distance, a table for each layer, and the mean of all patches in front of the classifier. Not
// built: the one table of all layers that checkpoints before fine-tuning have.
#include <string>

#include "model/patch_layers.h"
#include "model/vision_family.h"

namespace steelyard::model {

namespace {

struct Beit {
  PatchLayers net;
  bool mask_token = false, absolute = false, relative = false, pools_mean = true, scales = true;
  [[nodiscard]] std::int64_t tokens() const { return 1 + net.patches(); }
};

Beit read(ConfigReader& config, const SampleShape& sample) {
  Beit beit;
  beit.net = read_patch_layers(config, sample, 16);
  beit.net.inner = config.whole({"intermediate_size"}, 3072, kWideLimits);
  beit.net.drop_path = config.probability({"drop_path_rate"}, 0.1);
  beit.mask_token = config.flag({"use_mask_token"}, false);
  beit.absolute = config.flag({"use_absolute_position_embeddings"}, false);
  beit.relative = config.flag({"use_relative_position_bias"}, false);
  beit.pools_mean = config.flag({"use_mean_pooling"}, true);
  beit.scales = config.real({"layer_scale_init_value"}, 0.1, -1e6, 1e6) > 0.0;
  if (config.flag({"use_shared_relative_position_bias"}, false)) {
    config.reject("use_shared_relative_position_bias", "true",
                  "false: fine-tuning gives each layer a table of its own "
                  "(use_relative_position_bias)");
  }
  return beit;
}

Block embed(const Graph& graph, const Beit& beit) {
  const std::string at = "beit.embeddings.";
  BlockBuilder block(graph, "embed");
  TensorRef x = add_patches(block, beit.net, at + "patch_embeddings.projection");
  if (beit.mask_token) {
    const std::size_t from = block.weight_count();
    (void)block.parameter(at + "mask_token", {1, 1, beit.net.hidden}, WeightRole::other);
    block.leave_unread(from);
  }
  x = block.class_tokens("class_token", x, {at + "cls_token"});
  if (beit.absolute) x = add_positions(block, beit.net, at + "position_embeddings", x);
  return block.finish(block.dropout(at + "dropout", x, beit.net.hidden_dropout));
}

TensorRef attention(BlockBuilder& block, TensorRef x, const Beit& beit) {
  const PatchLayers& net = beit.net;
  const std::string module = "attention.attention";
  const auto [q, k, v] = add_projections(block, module, x, net.heads, {.bias = true}, {});
  const AttentionShape shape{.heads = net.heads,
                             .kv_heads = net.heads,
                             .head_dim = net.hidden / net.heads,
                             .causal = false,
                             .dropout = net.attention_dropout,
                             .casts_probabilities = false,
                             .bias = beit.relative};
  if (!beit.relative) return block.attention(module, q, k, v, shape);
  const std::int64_t reach = 2 * net.own_rows() - 1;
  const TensorRef bias =
      block.window_bias(module + ".relative_position_bias.relative_position_bias",
                        reach * reach + 3, beit.tokens(), net.heads);
  return block.masked_attention(module, q, k, v, bias, shape);
}

Block layer_of(const Graph& graph, const Beit& beit, bool drops) {
  const PatchLayers& net = beit.net;
  const double drop_path = drops ? net.drop_path : 0.0;
  const LinearOptions biased{.bias = true};
  BlockBuilder block(graph, "beit.encoder.layer");
  const TensorRef x = block.input({graph.batch, beit.tokens(), net.hidden});
  TensorRef h = attention(block, block.layer_norm("layernorm_before", x), beit);
  h = block.linear("attention.output.dense", h, net.hidden, biased);
  h = block.dropout("attention.output.dropout", h, net.hidden_dropout);
  if (beit.scales) h = block.multiply_weight("lambda_1", h, net.hidden);
  const TensorRef middle =
      block.add("residual_attention", block.drop_path("drop_path", h, drop_path), x);
  h = block.linear("intermediate.dense", block.layer_norm("layernorm_after", middle), net.inner,
                   biased);
  h = block.activation("intermediate.act", h, net.activation);
  h = block.linear("output.dense", h, net.hidden, biased);
  h = block.dropout("output.dropout", h, net.hidden_dropout);
  if (beit.scales) h = block.multiply_weight("lambda_2", h, net.hidden);
  Block layer =
      block.finish(block.add("residual_mlp", block.drop_path("drop_path2", h, drop_path), middle));
  layer.buffers.clear();  // the index of distances is made in host memory and kept there
  return layer;
}

}  // namespace

Graph build_beit(ConfigReader& config, const SampleShape& sample) {
  const Beit beit = read(config, sample);
  Graph graph = start_patch_graph(config, sample, beit.net);
  graph.segments.push_back({1, {embed(graph, beit)}});
  add_layers(graph, drop_path_kinds(beit.net.layers, beit.net.drop_path),
             [&](int drops) { return layer_of(graph, beit, drops != 0); });
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, beit.tokens(), beit.net.hidden});
  if (beit.pools_mean) {
    x = block.global_average_pool("patch_tokens.mean", block.tokens_from("patch_tokens", x, 1));
    x = block.layer_norm("beit.pooler.layernorm", x);
  } else {
    x = block.first_token("first_token", block.layer_norm("beit.layernorm", x));
  }
  finish_classifier(graph, block, x, "classifier", beit.net.classes);
  return graph;
}

}  // namespace steelyard::model
