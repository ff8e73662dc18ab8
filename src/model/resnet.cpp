// Residual networks: torchvision.models.resnet (timm.models.resnet has the same network, names and
// in-place activations) and transformers' modeling_resnet.py, whose activations are not in place.
#include "model/resnet_parts.h"

#include <algorithm>
#include <functional>

#include "model/family.h"
#include "model/image_parts.h"

namespace steelyard::model {

namespace {

struct Stage {
  std::int64_t blocks = 1;
  std::int64_t middle = 64;    // channels inside a bottleneck, of the 3x3 convolution
  std::int64_t outputs = 256;  // channels of the stage
  std::int64_t stride = 1;     // of its first block
};

// How a library names its modules and writes its activations.
struct Style {
  std::string stem_conv, stem_norm, head;
  bool in_place = true;
  bool stride_in_first = false;  // of a bottleneck: the original paper's, instead of the 3x3
  bool frozen_norms = false;     // buffers alone: x * scale + bias (FrozenBatchNorm2d)
};

struct ResNet {
  Picture picture;
  bool bottleneck = true;
  std::int64_t stem = 64;
  std::int64_t groups = 1;
  std::int64_t classes = 1000;
  std::vector<Stage> stages;
  Style style;
};

// Names of a block's k-th convolution and its norm.
struct PartNames {
  std::string conv, norm;
};
using Namer = PartNames (*)(int part);  // 0: of the shortcut

PartNames torchvision_part(int part) {
  if (part == 0) return {"downsample.0", "downsample.1"};
  const std::string number = std::to_string(part);
  return {"conv" + number, "bn" + number};
}

PartNames hugging_face_part(int part) {
  const std::string module =
      part == 0 ? std::string("shortcut") : "layer." + std::to_string(part - 1);
  return {module + ".convolution", module + ".normalization"};
}

TensorRef activate(BlockBuilder& block, const std::string& name, TensorRef x, bool in_place) {
  return in_place ? block.activation_in_place(name, x, ActivationKind::relu)
                  : block.activation(name, x, ActivationKind::relu);
}

TensorRef conv_norm(BlockBuilder& block, const Style& style, const PartNames& names, TensorRef x,
                    std::int64_t channels, const ConvOptions& options) {
  x = block.conv(names.conv, x, channels, options);
  if (!style.frozen_norms) return block.batch_norm(names.norm, x);
  x = block.multiply(names.norm + ".scaled", x,
                     block.values(names.norm + ".scale", {1, channels, 1, 1}));
  constexpr std::int64_t kBuffers = 4;  // weight, bias, mean, variance
  return block.add_buffer(names.norm, x, {kBuffers, channels});
}

struct BlockPlace {
  std::string name;
  Shape input;
  bool first = false;  // of its stage
};

// Bottleneck: 1x1, 3x3, 1x1; basic: two 3x3. A shortcut where the shape changes.
Block residual_block(const Graph& graph, const ResNet& net, const Stage& stage,
                     const BlockPlace& place, Namer part) {
  BlockBuilder block(graph, place.name);
  const TensorRef x = block.input(place.input);
  const std::int64_t stride = place.first ? stage.stride : 1;
  const bool in_place = net.style.in_place;
  const std::int64_t early = net.style.stride_in_first ? stride : 1;
  TensorRef h;
  if (net.bottleneck) {
    h = conv_norm(block, net.style, part(1), x, stage.middle, {.kernel = 1, .stride = early});
    h = activate(block, "relu_1", h, in_place);
    h = conv_norm(block, net.style, part(2), h, stage.middle,
                  {.kernel = 3, .stride = stride / early, .padding = 1, .groups = net.groups});
    h = activate(block, "relu_2", h, in_place);
    h = conv_norm(block, net.style, part(3), h, stage.outputs, {.kernel = 1});
  } else {
    h = conv_norm(block, net.style, part(1), x, stage.outputs,
                  {.kernel = 3, .stride = stride, .padding = 1});
    h = activate(block, "relu_1", h, in_place);
    h = conv_norm(block, net.style, part(2), h, stage.outputs, {.kernel = 3, .padding = 1});
  }
  TensorRef shortcut = x;
  if (stride != 1 || place.input.at(1) != stage.outputs) {
    shortcut =
        conv_norm(block, net.style, part(0), x, stage.outputs, {.kernel = 1, .stride = stride});
  }
  h = block.add_in_place("residual", h, shortcut);
  return block.finish(activate(block, "relu", h, in_place));
}

using StageName = std::function<std::string(std::size_t stage)>;

// Stem and stages; the shape of what they put out.
Shape add_stages(Graph& graph, const ResNet& net, Namer part, const StageName& stage_name) {
  BlockBuilder embed(graph, "embed");
  TensorRef x = conv_norm(embed, net.style, {net.style.stem_conv, net.style.stem_norm}, kPixels,
                          net.stem, {.kernel = 7, .stride = 2, .padding = 3});
  x = activate(embed, "relu", x, net.style.in_place);
  x = embed.max_pool("maxpool", x, {.kernel = 3, .stride = 2, .padding = 1});
  Shape stream = embed.shape(x);
  graph.segments.push_back({1, {embed.finish(x)}});
  for (std::size_t i = 0; i < net.stages.size(); ++i) {
    const Stage& stage = net.stages[i];
    const std::string name = stage_name(i);
    graph.layers += stage.blocks;
    Block first = residual_block(graph, net, stage, {name, stream, true}, part);
    const bool alike = stage.stride == 1 && stream.at(1) == stage.outputs;
    stream = first.tensors.at(static_cast<std::size_t>(first.output.index)).shape;
    graph.segments.push_back({alike ? stage.blocks : 1, {std::move(first)}});
    if (alike || stage.blocks == 1) continue;
    graph.segments.push_back(
        {stage.blocks - 1, {residual_block(graph, net, stage, {name, stream, false}, part)}});
  }
  return stream;
}

Graph finish_resnet(const ConfigReader& config, const SampleShape& sample, const ResNet& net,
                    Namer part, const StageName& stage_name) {
  Graph graph = start_picture_graph(config, sample, net.picture);
  const Shape stream = add_stages(graph, net, part, stage_name);
  graph.hidden = stream.at(1);
  BlockBuilder head(graph, "head");
  const TensorRef last = head.input(stream);
  finish_classifier(graph, head, head.global_average_pool("avgpool", last), net.style.head,
                    net.classes);
  return graph;
}

void add_classic_stages(ResNet& net, const std::vector<std::int64_t>& depths, std::int64_t base) {
  std::int64_t planes = 64;
  for (const std::int64_t blocks : depths) {
    const std::int64_t middle = planes * base / 64 * net.groups;
    net.stages.push_back(
        {blocks, middle, net.bottleneck ? 4 * planes : planes, net.stages.empty() ? 1 : 2});
    planes *= 2;
  }
}

}  // namespace

Shape add_frozen_resnet(Graph& graph, const FrozenResNet& backbone) {
  ResNet net;
  net.bottleneck = backbone.bottleneck;
  net.style = {.stem_conv = backbone.prefix + "conv1",
               .stem_norm = backbone.prefix + "bn1",
               .head = {},
               .frozen_norms = true};
  add_classic_stages(net, backbone.depths, 64);
  const std::size_t first = graph.segments.size();
  const Shape stream = add_stages(graph, net, torchvision_part, [&](std::size_t stage) {
    return backbone.prefix + "layer" + std::to_string(stage + 1);
  });
  const std::string& trained = backbone.prefix + "layer2";
  for (std::size_t i = first; i < graph.segments.size(); ++i) {
    Block& block = graph.segments[i].blocks.front();
    if (block.name == trained) break;
    for (Weight& weight : block.weights) weight.trains = false;
  }
  return stream;
}

Graph build_torchvision_resnet(ConfigReader& config, const SampleShape& sample) {
  ResNet net;
  net.picture = picture_of(sample, 224, 224, config.whole({"in_chans"}, 3, kChannelLimits));
  net.bottleneck = config.choice({"block"}, "bottleneck", {"basic", "bottleneck"}) == "bottleneck";
  net.groups = config.whole({"groups", "cardinality"}, 1, kChannelLimits);
  net.classes = config.whole({"num_classes"}, 1000, kLabelLimits);
  net.style = {.stem_conv = "conv1", .stem_norm = "bn1", .head = "fc"};
  const std::int64_t base = config.whole({"width_per_group", "base_width"}, 64, kChannelLimits);
  const std::vector<std::int64_t> depths =
      config.whole_list({"layers"}, {3, 4, 6, 3}, kLayerLimits);
  add_classic_stages(net, depths, base);
  return finish_resnet(config, sample, net, torchvision_part,
                       [](std::size_t stage) { return "layer" + std::to_string(stage + 1); });
}

Graph build_resnet(ConfigReader& config, const SampleShape& sample) {
  ResNet net;
  net.picture = picture_of(sample, 224, 224, config.whole({"num_channels"}, 3, kChannelLimits));
  net.bottleneck =
      config.choice({"layer_type"}, "bottleneck", {"basic", "bottleneck"}) == "bottleneck";
  net.stem = config.whole({"embedding_size"}, 64, kChannelLimits);
  net.classes = labels_of(config);
  net.style = {.stem_conv = "resnet.embedder.embedder.convolution",
               .stem_norm = "resnet.embedder.embedder.normalization",
               .head = "classifier.1",
               .in_place = false,
               .stride_in_first = config.flag({"downsample_in_bottleneck"}, false)};
  const bool early = config.flag({"downsample_in_first_stage"}, false);
  const std::vector<std::int64_t> widths =
      config.whole_list({"hidden_sizes"}, {256, 512, 1024, 2048}, kChannelLimits);
  const std::vector<std::int64_t> depths =
      config.whole_list({"depths"}, {3, 4, 6, 3}, kLayerLimits);
  if (widths.size() != depths.size()) {
    config.reject("depths", std::to_string(depths.size()) + " stages",
                  "one for each of the " + std::to_string(widths.size()) + " hidden_sizes");
  }
  constexpr std::int64_t kReduction = 4;
  for (std::size_t i = 0; i < std::min(widths.size(), depths.size()); ++i) {
    net.stages.push_back({depths[i], widths[i] / kReduction, widths[i], i > 0 || early ? 2 : 1});
  }
  return finish_resnet(config, sample, net, hugging_face_part, [](std::size_t stage) {
    return "resnet.encoder.stages." + std::to_string(stage) + ".layers";
  });
}

}  // namespace steelyard::model
