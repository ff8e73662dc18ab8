// transformers' own regnet, efficientnet, mobilenet_v1 and mobilenet_v2 (4.49: modeling_regnet.py,
// modeling_efficientnet.py, modeling_mobilenet_v1.py, modeling_mobilenet_v2.py): their
// configurations written as networks of layers (docs/model/layers.md), with their modules' names.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "facts/value.h"
#include "model/image_parts.h"
#include "model/picture_families.h"

namespace steelyard::model {

namespace {

using facts::Array;
using facts::Object;
using facts::Value;
using Layers = Array;

constexpr Limits kCounts{1, 1024};

Value conv(const std::string& name, Value out, Value kernel = 1, Value stride = 1, Value groups = 1,
           bool bias = false) {
  return Object{{"conv", name},
                {"out", std::move(out)},
                {"kernel", std::move(kernel)},
                {"stride", std::move(stride)},
                {"groups", std::move(groups)},
                {"bias", bias}};
}

void add(Layers& to, Layers more) {
  for (Value& layer : more) to.push_back(std::move(layer));
}

// NAME.convolution, NAME.normalization and perhaps an activation.
Layers normed(const std::string& name, const std::string& act, Value out, Value kernel = 1,
              Value stride = 1, Value groups = 1) {
  Layers layers = {conv(name + ".convolution", std::move(out), std::move(kernel), std::move(stride),
                        std::move(groups)),
                   Object{{"batch_norm", name + ".normalization"}}};
  if (!act.empty()) layers.push_back(Object{{"activation", act}, {"name", name + ".activation"}});
  return layers;
}

Value block(const std::string& name, Layers layers) {
  return Object{{"block", name}, {"layers", std::move(layers)}};
}

Value loss() {
  return Object{{"loss", "classification"}};
}

Value list(const std::vector<std::int64_t>& numbers) {
  Array values;
  for (const std::int64_t number : numbers) values.emplace_back(number);
  return values;
}

// The configuration's picture and classes around the network.
Graph built(ConfigReader& config, const SampleShape& sample, std::int64_t side, Object variables,
            Array network, Object blocks = {}) {
  const std::int64_t labels = labels_of(config);
  const std::int64_t size = config.whole({"image_size"}, side, kSideLimits);
  const std::int64_t colours = config.whole({"num_channels"}, 3, kChannelLimits);
  if (config.first_error()) return {};
  const Value layers = Object{{"model_type", "layers"},
                              {"image_size", size},
                              {"in_chans", colours},
                              {"num_classes", labels},
                              {"variables", std::move(variables)},
                              {"blocks", std::move(blocks)},
                              {"network", std::move(network)}};
  ConfigReader reader(layers, config.name());
  Graph graph = build_layered(reader, sample);
  if (reader.first_error()) config.reject(*reader.first_error());
  return graph;
}

// swish is transformers' other name of silu.
std::string activation_of(ConfigReader& config, const std::string& fallback) {
  const std::string act = config.text({"hidden_act"}, fallback);
  if (!activation_named(act) && act != "swish") {
    config.reject("hidden_act", act, "an activation that transformers knows");
  }
  return act == "swish" ? "silu" : act;
}

// _make_divisible: the nearest multiple, not below 90 %.
std::int64_t divisible(double channels, std::int64_t divisor, std::int64_t least) {
  const auto d = static_cast<double>(divisor);
  auto rounded = static_cast<std::int64_t>(channels + d / 2.0) / divisor * divisor;
  rounded = std::max(least, rounded);
  if (static_cast<double>(rounded) < 0.9 * channels) rounded += divisor;
  return rounded;
}

// --- EfficientNet ---

struct Efficient {
  std::vector<std::int64_t> outputs, middles, squeezes, kernels, strides, expands, adds;
};

void add_stage(Efficient& net, ConfigReader& config, std::int64_t in, std::int64_t out,
               std::int64_t repeats, std::int64_t kernel, std::int64_t stride, std::int64_t ratio) {
  const double squeeze = config.real({"squeeze_expansion_ratio"}, 0.25, 0.0, 16.0);
  for (std::int64_t j = 0; j < repeats; ++j) {
    const std::int64_t from = j == 0 ? in : out;
    net.outputs.push_back(out);
    net.middles.push_back(from * ratio);
    net.squeezes.push_back(
        std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(from) * squeeze)));
    net.kernels.push_back(kernel);
    net.strides.push_back(j == 0 ? stride : 1);
    net.expands.push_back(ratio != 1 ? 1 : 0);
    net.adds.push_back(j > 0 ? 1 : 0);
  }
}

Layers efficient_block(const std::string& act) {
  Layers inner = {
      Object{{"conv", "expansion.expand_conv"},
             {"out", "=middles[index]"},
             {"if", "=expands[index] == 1"}},
      Object{{"batch_norm", "expansion.expand_bn"}, {"if", "=expands[index] == 1"}},
      Object{{"activation", act}, {"if", "=expands[index] == 1"}},
      conv("depthwise_conv.depthwise_conv", "=in", "=kernels[index]", "=strides[index]", "=in"),
      Object{{"batch_norm", "depthwise_conv.depthwise_norm"}},
      Object{{"activation", act}},
      Object{{"gate", Layers{Object{{"global_pool", "squeeze_excite.squeeze"}, {"keep", true}},
                             conv("squeeze_excite.reduce", "=squeezes[index]", 1, 1, 1, true),
                             Object{{"activation", act}},
                             conv("squeeze_excite.expand", "=middles[index]", 1, 1, 1, true),
                             Object{{"activation", "sigmoid"}}}},
             {"name", "squeeze_excite"}},
      conv("projection.project_conv", "=outputs[index]"),
      Object{{"batch_norm", "projection.project_bn"}}};
  return {Object{{"residual", std::move(inner)}, {"if", "=adds[index] == 1"}}};
}

}  // namespace

Graph build_regnet(ConfigReader& config, const SampleShape& sample) {
  const std::string act = activation_of(config, "relu");
  const std::int64_t stem = config.whole({"embedding_size"}, 32, kChannelLimits);
  const auto widths = config.whole_list({"hidden_sizes"}, {128, 192, 512, 1088}, kChannelLimits);
  const auto depths = config.whole_list({"depths"}, {2, 6, 12, 2}, kCounts);
  const std::int64_t group = config.whole({"groups_width"}, 64, kChannelLimits);
  const bool squeezes = config.choice({"layer_type"}, "y", {"x", "y"}) == "y";
  const bool halves = config.flag({"downsample_in_first_stage"}, true);
  if (widths.size() != depths.size()) {
    config.reject("depths", fmt::format("{} numbers", depths.size()),
                  fmt::format("{}: as many as hidden_sizes", widths.size()));
    return {};
  }
  Array network = {block("embed", normed("regnet.embedder.embedder", act, stem, 3, 2))};
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const std::int64_t first = i > 0 || halves ? 2 : 1;
    network.push_back(Object{{"block", fmt::format("regnet.encoder.stages.{}.layers", i)},
                             {"repeat", depths[i]},
                             {"use", "layer"},
                             {"out", widths[i]},
                             {"groups", std::max<std::int64_t>(1, widths[i] / group)},
                             {"stride", fmt::format("=index == 0 ? {} : 1", first)},
                             {"squeeze", "=round(in / 4)"}});
  }
  network.push_back(
      block("head", {Object{{"global_pool", "regnet.pooler"}},
                     Object{{"linear", "classifier.1"}, {"out", "=classes"}}, loss()}));
  Layers inner = normed("layer.0", act, "=out");
  add(inner, normed("layer.1", act, "=out", 3, "=stride", "=groups"));
  if (squeezes) {
    const std::string gate = "layer.2.attention.";
    inner.push_back(
        Object{{"gate",
                Layers{Object{{"global_pool", "layer.2.pooler"}, {"keep", true}},
                       conv(gate + "0", "=squeeze", 1, 1, 1, true), Object{{"activation", "relu"}},
                       conv(gate + "2", "=out", 1, 1, 1, true), Object{{"activation", "sigmoid"}}}},
               {"name", "layer.2"}});
  }
  add(inner, normed(squeezes ? "layer.3" : "layer.2", "", "=out"));
  Layers body = {Object{{"residual", std::move(inner)},
                        {"in_place", true},
                        {"shortcut",
                         Layers{Object{{"use", "shortcut"}, {"if", "=stride != 1 || in != out"}}}}},
                 Object{{"activation", act}}};
  Object blocks = {{"layer", std::move(body)},
                   {"shortcut", normed("shortcut", "", "=out", 1, "=stride")}};
  return built(config, sample, 224, {}, std::move(network), std::move(blocks));
}

// Padding of strided depthwise convolutions is chosen so that sides are halved, rounded up.
Graph build_efficientnet(ConfigReader& config, const SampleShape& sample) {
  const std::string act = activation_of(config, "swish");
  const double wide = config.real({"width_coefficient"}, 2.0, 0.01, 100.0);
  const double deep = config.real({"depth_coefficient"}, 3.1, 0.01, 100.0);
  const std::int64_t divisor = config.whole({"depth_divisor"}, 8, kChannelLimits);
  const auto inputs =
      config.whole_list({"in_channels"}, {32, 16, 24, 40, 80, 112, 192}, kChannelLimits);
  const auto outputs =
      config.whole_list({"out_channels"}, {16, 24, 40, 80, 112, 192, 320}, kChannelLimits);
  const auto kernels = config.whole_list({"kernel_sizes"}, {3, 3, 5, 3, 5, 5, 3}, kCounts);
  const auto strides = config.whole_list({"strides"}, {1, 2, 2, 2, 1, 2, 1}, kCounts);
  const auto repeats = config.whole_list({"num_block_repeats"}, {1, 2, 2, 3, 3, 4, 1}, kCounts);
  const auto ratios = config.whole_list({"expand_ratios"}, {1, 6, 6, 6, 6, 6, 6}, kCounts);
  const std::size_t stages = inputs.size();
  for (const auto* numbers : {&outputs, &kernels, &strides, &repeats, &ratios}) {
    if (numbers->size() == stages) continue;
    config.reject("in_channels", fmt::format("{} stages", stages),
                  "as many in out_channels, kernel_sizes, strides, num_block_repeats and "
                  "expand_ratios");
    return {};
  }
  const auto filters = [&](std::int64_t channels) {
    return divisible(static_cast<double>(channels) * wide, divisor, divisor);
  };
  Efficient net;
  for (std::size_t i = 0; i < stages; ++i) {
    const auto times = static_cast<std::int64_t>(std::ceil(deep * static_cast<double>(repeats[i])));
    add_stage(net, config, filters(inputs[i]), filters(outputs[i]), times, kernels[i], strides[i],
              ratios[i]);
  }
  const std::int64_t features = filters(1280);
  Array network = {
      block("embed", {conv("efficientnet.embeddings.convolution", filters(32), 3, 2),
                      Object{{"batch_norm", "efficientnet.embeddings.batchnorm"}},
                      Object{{"activation", act}}}),
      Object{{"block", "efficientnet.encoder.blocks"},
             {"repeat", std::ssize(net.outputs)},
             {"layers", efficient_block(act)}},
      block("head", {conv("efficientnet.encoder.top_conv", features),
                     Object{{"batch_norm", "efficientnet.encoder.top_bn"}},
                     Object{{"activation", act}}, Object{{"global_pool", "efficientnet.pooler"}},
                     Object{{"dropout", config.probability({"dropout_rate"}, 0.5)}},
                     Object{{"linear", "classifier"}, {"out", "=classes"}}, loss()})};
  Object variables = {{"outputs", list(net.outputs)},   {"middles", list(net.middles)},
                      {"squeezes", list(net.squeezes)}, {"kernels", list(net.kernels)},
                      {"strides", list(net.strides)},   {"expands", list(net.expands)},
                      {"adds", list(net.adds)}};
  return built(config, sample, 600, std::move(variables), std::move(network));
}

Graph build_mobilenet_v1(ConfigReader& config, const SampleShape& sample) {
  const std::string act = activation_of(config, "relu6");
  const double wide = config.real({"depth_multiplier"}, 1.0, 0.01, 100.0);
  const std::int64_t least = config.whole({"min_depth"}, 8, kChannelLimits);
  constexpr std::int64_t kStrides[] = {1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1};
  std::int64_t depth = 32;
  const auto width = [&] {
    return std::max(static_cast<std::int64_t>(static_cast<double>(depth) * wide), least);
  };
  Array network = {block("embed", normed("mobilenet_v1.conv_stem", act, width(), 3, 2))};
  std::vector<std::int64_t> outputs, strides, kernels, depthwise;
  std::int64_t out = width();
  for (std::size_t i = 0; i < std::size(kStrides); ++i) {
    const std::int64_t in = out;
    if (kStrides[i] == 2 || i == 0) {
      depth *= 2;
      out = width();
    }
    outputs.insert(outputs.end(), {in, out});
    strides.insert(strides.end(), {kStrides[i], 1});
    kernels.insert(kernels.end(), {3, 1});
    depthwise.insert(depthwise.end(), {1, 0});
  }
  network.push_back(Object{
      {"block", "mobilenet_v1.layer"},
      {"repeat", std::ssize(outputs)},
      {"layers", Layers{conv("convolution", "=outputs[index]", "=kernels[index]", "=strides[index]",
                             "=depthwise[index] == 1 ? in : 1"),
                        Object{{"batch_norm", "normalization"}}, Object{{"activation", act}}}}});
  network.push_back(
      block("head", {Object{{"global_pool", "mobilenet_v1.pooler"}},
                     Object{{"dropout", config.probability({"classifier_dropout_prob"}, 0.999)}},
                     Object{{"linear", "classifier"}, {"out", "=classes"}}, loss()}));
  Object variables = {{"outputs", list(outputs)},
                      {"strides", list(strides)},
                      {"kernels", list(kernels)},
                      {"depthwise", list(depthwise)}};
  return built(config, sample, 224, std::move(variables), std::move(network));
}

namespace {

struct MobileV2 {
  std::vector<std::int64_t> widths, middles, strides, dilations;
};

// Behind output_stride windows grow instead of steps.
MobileV2 mobile_v2_of(ConfigReader& config, double wide, std::int64_t divisor, std::int64_t least) {
  constexpr std::int64_t kWidths[] = {16, 24, 24, 32, 32,  32,  64,  64, 64,
                                      64, 96, 96, 96, 160, 160, 160, 320};
  constexpr std::int64_t kStrides[] = {2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1};
  const double expand = config.real({"expand_ratio"}, 6.0, 0.01, 1000.0);
  const std::int64_t most = config.whole({"output_stride"}, 32, kCounts);
  MobileV2 net;
  for (const std::int64_t width : kWidths) {
    net.widths.push_back(divisible(std::round(static_cast<double>(width) * wide), divisor, least));
  }
  std::int64_t stride = 2, dilation = 1;
  for (std::size_t i = 0; i < std::size(kStrides); ++i) {
    const double in = static_cast<double>(net.widths[i]);
    net.middles.push_back(divisible(std::round(in * expand), divisor, least));
    const bool dilates = stride == most;
    net.strides.push_back(dilates ? 1 : kStrides[i]);
    net.dilations.push_back(dilates ? dilation : 1);
    if (dilates) dilation *= kStrides[i];
    if (!dilates) stride *= kStrides[i];
  }
  return net;
}

}  // namespace

Graph build_mobilenet_v2(ConfigReader& config, const SampleShape& sample) {
  const std::string act = activation_of(config, "relu6");
  const double wide = config.real({"depth_multiplier"}, 1.0, 0.01, 100.0);
  const std::int64_t divisor = config.whole({"depth_divisible_by"}, 8, kChannelLimits);
  const std::int64_t least = config.whole({"min_depth"}, 8, kChannelLimits);
  const bool fine = config.flag({"finegrained_output"}, true) && wide < 1.0;
  const MobileV2 net = mobile_v2_of(config, wide, divisor, least);
  const std::int64_t stem = divisible(std::round(32.0 * wide), divisor, least);
  const std::int64_t features = fine ? 1280 : divisible(std::round(1280.0 * wide), divisor, least);
  const std::string root = "mobilenet_v2.conv_stem.";
  Layers embed = normed(root + "first_conv", act, stem, 3, 2);
  if (!config.flag({"first_layer_is_expansion"}, true)) {
    add(embed, normed(root + "expand_1x1", act, stem));
  }
  add(embed, normed(root + "conv_3x3", act, stem, 3, 1, stem));
  add(embed, normed(root + "reduce_1x1", "", net.widths.front()));
  Layers inner = normed("expand_1x1", act, "=middles[index]");
  Layers window = normed("conv_3x3", act, "=middles[index]", 3, "=strides[index]", "=in");
  window.front().set("dilation", "=dilations[index]");
  add(inner, std::move(window));
  add(inner, normed("reduce_1x1", "", "=widths[index + 1]"));
  Layers head = normed("mobilenet_v2.conv_1x1", act, features);
  add(head, {Object{{"global_pool", "mobilenet_v2.pooler"}},
             Object{{"dropout", config.probability({"classifier_dropout_prob"}, 0.8)}},
             Object{{"linear", "classifier"}, {"out", "=classes"}}, loss()});
  const std::string adds = "=strides[index] == 1 && widths[index] == widths[index + 1]";
  Array network = {block("embed", std::move(embed)),
                   Object{{"block", "mobilenet_v2.layer"},
                          {"repeat", std::ssize(net.strides)},
                          {"layers", Layers{Object{{"residual", std::move(inner)}, {"if", adds}}}}},
                   block("head", std::move(head))};
  Object variables = {{"widths", list(net.widths)},
                      {"middles", list(net.middles)},
                      {"strides", list(net.strides)},
                      {"dilations", list(net.dilations)}};
  return built(config, sample, 224, std::move(variables), std::move(network));
}

}  // namespace steelyard::model
