// ConvNeXt and ConvNeXt V2 (transformers 4.57: modeling_convnext.py, modeling_convnextv2.py). The
// views between channels first and last are not copied: the permuted tensors lead the convolutions
// to that order (ATen's cudnn_conv_suggest_memory_format).
#include <fmt/format.h>

#include <string>
#include <vector>

#include "model/image_parts.h"
#include "model/patch_layers.h"
#include "model/vision_family.h"

namespace steelyard::model {

namespace {

struct ConvNext {
  Picture picture;
  std::string root;
  std::vector<std::int64_t> widths, depths;
  std::int64_t patch = 4, classes = 2;
  ActivationKind activation = ActivationKind::gelu;
  double drop_path = 0.0;
  bool scales = false;     // a learned scale behind each layer
  bool responses = false;  // V2: global response normalisation
};

TensorRef channels_last(BlockBuilder& block, const std::string& name, TensorRef x) {
  const Shape of = block.shape(x);
  return block.view(name, x, {of.at(0), of.at(2), of.at(3), of.at(1)});
}

TensorRef channels_first(BlockBuilder& block, const std::string& name, TensorRef x) {
  const Shape of = block.shape(x);
  return block.view(name, x, {of.at(0), of.at(3), of.at(1), of.at(2)});
}

TensorRef normed(BlockBuilder& block, const std::string& name, TensorRef x) {
  const TensorRef last = channels_last(block, name + ".permute", x);
  return channels_first(block, name + ".permute_back", block.layer_norm(name, last));
}

TensorRef reduced(BlockBuilder& block, const std::string& name, TensorRef x, Shape out,
                  Saves saves) {
  const TensorRef y = block.view(name, x, std::move(out));
  block.last().kind = OperatorKind::reduce;
  block.last().saves = saves;
  return y;
}

// ConvNextV2GRN.forward: the channels' norms over the picture, divided by their mean.
TensorRef normed_responses(BlockBuilder& block, TensorRef x) {
  const Shape of = block.shape(x);  // [B,h,w,C]
  const Shape channels = {of.at(0), 1, 1, of.at(3)};
  const TensorRef global = reduced(block, "grn.vector_norm", x, channels, Saves::both);
  const TensorRef mean = reduced(block, "grn.mean", global, {of.at(0), 1, 1, 1}, Saves::nothing);
  const TensorRef norms = block.multiply("grn.div", global, mean);  // a quotient keeps both too
  const TensorRef gain = block.parameter("grn.weight", {1, 1, 1, of.at(3)}, WeightRole::other);
  const TensorRef scaled = block.multiply("grn.mul", block.multiply("grn.scale", x, norms), gain);
  const TensorRef bias = block.parameter("grn.bias", {1, 1, 1, of.at(3)}, WeightRole::bias);
  return block.add("grn.residual", block.add("grn.add", scaled, bias), x);
}

Block layer_of(const Graph& graph, const ConvNext& net, const std::string& name,
               const Shape& stream, bool drops) {
  const std::int64_t width = stream.at(1);
  BlockBuilder block(graph, name);
  const TensorRef x = block.input(stream);
  TensorRef h =
      block.conv("dwconv", x, width, {.kernel = 7, .padding = 3, .groups = width, .bias = true});
  h = block.layer_norm("layernorm", channels_last(block, "permute", h));
  constexpr std::int64_t kExpansion = 4;
  h = block.linear("pwconv1", h, kExpansion * width, {.bias = true});
  h = block.activation("act", h, net.activation);
  if (net.responses) h = normed_responses(block, h);
  h = block.linear("pwconv2", h, width, {.bias = true});
  if (net.scales) h = block.multiply_weight("layer_scale_parameter", h, width);
  h = channels_first(block, "permute_back", h);
  h = block.drop_path("drop_path", h, drops ? net.drop_path : 0.0);
  return block.finish(block.add("residual", x, h));
}

ConvNext read(ConfigReader& config, const SampleShape& sample, const std::string& root) {
  ConvNext net;
  net.root = root;
  const std::int64_t side = config.whole({"image_size"}, 224, kSideLimits);
  net.picture = picture_of(sample, side, side, config.whole({"num_channels"}, 3, kChannelLimits));
  net.patch = config.whole({"patch_size"}, 4, kSideLimits);
  net.widths = config.whole_list({"hidden_sizes"}, {96, 192, 384, 768}, kChannelLimits);
  net.depths = config.whole_list({"depths"}, {3, 3, 9, 3}, kLayerLimits);
  net.activation = config.activation({"hidden_act"}, "gelu");
  net.classes = labels_of(config);
  net.drop_path = config.probability({"drop_path_rate"}, 0.0);
  if (net.widths.size() != net.depths.size() || net.widths.empty()) {
    config.reject("depths", fmt::format("{} stages", net.depths.size()),
                  fmt::format("one for each of the {} hidden_sizes", net.widths.size()));
    net.widths = net.depths = {1};
  }
  return net;
}

Graph build(ConfigReader& config, const SampleShape& sample, const ConvNext& net) {
  Graph graph = start_picture_graph(config, sample, net.picture);
  BlockBuilder embed(graph, "embed");
  TensorRef x = embed.conv(net.root + ".embeddings.patch_embeddings", kPixels, net.widths[0],
                           {.kernel = net.patch, .stride = net.patch, .bias = true});
  x = normed(embed, net.root + ".embeddings.layernorm", x);
  Shape stream = embed.shape(x);
  graph.segments.push_back({1, {embed.finish(x)}});
  bool first = true;  // of all layers
  for (std::size_t i = 0; i < net.widths.size(); ++i) {
    const std::string stage = fmt::format("{}.encoder.stages.{}", net.root, i);
    if (i > 0) {
      BlockBuilder block(graph, "middle");
      TensorRef h = normed(block, stage + ".downsampling_layer.0", block.input(stream));
      h = block.conv(stage + ".downsampling_layer.1", h, net.widths[i],
                     {.kernel = 2, .stride = 2, .bias = true});
      stream = block.shape(h);
      graph.segments.push_back({1, {block.finish(h)}});
    }
    std::vector<int> kinds(static_cast<std::size_t>(net.depths[i]), net.drop_path > 0.0 ? 1 : 0);
    if (first) kinds.front() = 0;
    first = false;
    graph.layers += net.depths[i];
    add_layers(graph, kinds, [&](int drops) {
      return layer_of(graph, net, stage + ".layers", stream, drops != 0);
    });
  }
  graph.hidden = net.widths.back();
  BlockBuilder head(graph, "head");
  x = head.global_average_pool("mean", head.input(stream));
  x = head.layer_norm(net.root + ".layernorm", x);
  finish_classifier(graph, head, x, "classifier", net.classes);
  return graph;
}

}  // namespace

Graph build_convnext(ConfigReader& config, const SampleShape& sample) {
  ConvNext net = read(config, sample, "convnext");
  net.scales = config.real({"layer_scale_init_value"}, 1e-6, -1e6, 1e6) > 0.0;
  return build(config, sample, net);
}

Graph build_convnextv2(ConfigReader& config, const SampleShape& sample) {
  ConvNext net = read(config, sample, "convnextv2");
  net.responses = true;
  return build(config, sample, net);
}

}  // namespace steelyard::model
