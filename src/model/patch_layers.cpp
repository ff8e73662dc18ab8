#include "model/patch_layers.h"

#include <fmt/format.h>

namespace steelyard::model {

PatchLayers read_patch_layers(ConfigReader& config, const SampleShape& sample,
                              std::int64_t own_patch) {
  PatchLayers net;
  net.side = config.whole({"image_size"}, 224, kSideLimits);
  net.picture =
      picture_of(sample, net.side, net.side, config.whole({"num_channels"}, 3, kChannelLimits));
  net.patch = config.whole({"patch_size"}, own_patch, kSideLimits);
  net.hidden = config.whole({"hidden_size"}, 768, kHiddenLimits);
  net.layers = config.whole({"num_hidden_layers"}, 12, kLayerLimits);
  net.heads = config.whole({"num_attention_heads"}, 12, kHeadLimits);
  net.classes = labels_of(config);
  net.activation = config.activation({"hidden_act"}, "gelu");
  net.hidden_dropout = config.probability({"hidden_dropout_prob"}, 0.0);
  net.attention_dropout = config.probability({"attention_probs_dropout_prob"}, 0.0);
  (void)divided_heads(config, net.hidden, net.heads, "hidden_size", "num_attention_heads");
  if (net.patches() < 1 || net.own_rows() < 1) {
    config.reject(
        "patch_size", fmt::format("{}", net.patch),
        fmt::format("at most the picture's {} x {} pixels", net.picture.height, net.picture.width),
        "set train.image_size");
    net.patch = 1;
  }
  return net;
}

Graph start_patch_graph(const ConfigReader& config, const SampleShape& sample,
                        const PatchLayers& net) {
  Graph graph = start_picture_graph(config, sample, net.picture);
  graph.hidden = net.hidden;
  graph.layers = net.layers;
  return graph;
}

TensorRef add_patches(BlockBuilder& block, const PatchLayers& net, const std::string& projection) {
  const TensorRef x = block.conv(projection, kPixels, net.hidden,
                                 {.kernel = net.patch, .stride = net.patch, .bias = true});
  return block.view("patches", x, {block.shape(x).at(0), net.patches(), net.hidden}, true);
}

// interpolate_pos_encoding: the class token's apart, the others as a picture.
TensorRef add_positions(BlockBuilder& block, const PatchLayers& net, const std::string& name,
                        TensorRef x) {
  const std::int64_t own = net.own_rows() * net.own_rows();
  if (net.rows() == net.own_rows() && net.columns() == net.own_rows()) {
    return block.add_weight(name, x, {1, own + 1, net.hidden});
  }
  const TensorRef table = block.parameter(name, {1, own + 1, net.hidden}, WeightRole::other);
  const auto parts =
      block.split_tokens("positions.split", table, {{"class", 1}, {"patches", own}}, false);
  TensorRef grid =
      block.view("positions.grid", parts[1], {1, net.hidden, net.own_rows(), net.own_rows()}, true);
  grid = block.upsample("positions.interpolate", grid, net.rows(), net.columns());
  grid = block.view("positions.rows", grid, {1, net.patches(), net.hidden}, true);
  return block.add("add_positions", x, block.concatenate("positions.cat", parts[0], grid));
}

QueryKeyValue add_projections(BlockBuilder& block, const std::string& name, TensorRef x,
                              std::int64_t heads, const LinearOptions& of_query,
                              const LinearOptions& of_key) {
  const auto in_heads = [&](const char* part, const LinearOptions& options) {
    const std::string module = name + "." + part;
    return block.heads(module + "_heads", block.linear(module, x, block.width(x), options), heads);
  };
  QueryKeyValue parts;
  parts.q = in_heads("query", of_query);
  parts.k = in_heads("key", of_key);
  parts.v = in_heads("value", of_query);
  return parts;
}

std::vector<int> drop_path_kinds(std::int64_t layers, double probability) {
  std::vector<int> kinds(static_cast<std::size_t>(layers), probability > 0.0 ? 1 : 0);
  if (!kinds.empty()) kinds.front() = 0;
  return kinds;
}

}  // namespace steelyard::model
