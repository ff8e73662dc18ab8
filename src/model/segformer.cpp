// SegFormer (transformers 4.57: modeling_segformer.py): four stages of layers over overlapping
// patches, whose keys and values come from a shortened row; a classifier of pictures, or a head
// that joins what all stages put out into a class for each pixel. Its code has no fused attention.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "model/patch_layers.h"
#include "model/vision_family.h"

namespace steelyard::model {

namespace {

struct Stage {
  std::int64_t width = 32, depth = 2, heads = 1, reduction = 1, patch = 7, stride = 4;
  double ratio = 4.0;
  std::int64_t rows = 0, columns = 0;
  [[nodiscard]] std::int64_t tokens() const { return rows * columns; }
};

struct Segformer {
  Picture picture;
  std::vector<Stage> stages;
  ActivationKind activation = ActivationKind::gelu;
  double hidden_dropout = 0.0, attention_dropout = 0.0, drop_path = 0.1, head_dropout = 0.1;
  std::int64_t classes = 2, head_width = 256;
  bool per_pixel = false;
};

// Shared behind pictures and labels: what the stages but the last put out.
TensorRef stage_output(std::size_t stage) {
  return {true, static_cast<std::int32_t>(2 + stage)};
}

Shape rows_of(const Graph& graph, const Stage& stage) {
  return {graph.batch, stage.tokens(), stage.width};
}

Shape picture_of(const Graph& graph, const Stage& stage) {
  return {graph.batch, stage.width, stage.rows, stage.columns};
}

// Tokens seen as a picture whose channels are last, in which order its convolutions stay.
TensorRef convolved(BlockBuilder& block, TensorRef x, const std::string& name, const Shape& picture,
                    const ConvOptions& options) {
  TensorRef h = block.view(name + ".picture", x, picture);
  h = block.conv(name, h, picture.at(1), options);
  const Shape of = block.shape(h);
  return block.view(name + ".tokens", h, {of.at(0), of.at(2) * of.at(3), of.at(1)});
}

TensorRef attention(BlockBuilder& block, TensorRef x, const Segformer& net, const Stage& stage,
                    const Shape& picture) {
  const std::string module = "attention.self";
  const LinearOptions biased{.bias = true};
  const TensorRef q = block.heads(
      module + ".q_heads", block.linear(module + ".query", x, stage.width, biased), stage.heads);
  TensorRef short_row = x;
  if (stage.reduction > 1) {
    short_row = convolved(block, x, module + ".sr", picture,
                          {.kernel = stage.reduction, .stride = stage.reduction, .bias = true});
    short_row = block.layer_norm(module + ".layer_norm", short_row);
  }
  const TensorRef k =
      block.heads(module + ".k_heads",
                  block.linear(module + ".key", short_row, stage.width, biased), stage.heads);
  const TensorRef v =
      block.heads(module + ".v_heads",
                  block.linear(module + ".value", short_row, stage.width, biased), stage.heads);
  return block.attention(module, q, k, v,
                         {.heads = stage.heads,
                          .kv_heads = stage.heads,
                          .head_dim = stage.width / stage.heads,
                          .causal = false,
                          .dropout = net.attention_dropout,
                          .casts_probabilities = false,
                          .always_eager = true});
}

Block layer_of(const Graph& graph, const Segformer& net, const Stage& stage,
               const std::string& name, bool drops) {
  const double drop_path = drops ? net.drop_path : 0.0;
  BlockBuilder block(graph, name);
  const TensorRef x = block.input(rows_of(graph, stage));
  TensorRef h = block.layer_norm("layer_norm_1", x);
  h = attention(block, h, net, stage, picture_of(graph, stage));
  h = block.linear("attention.output.dense", h, stage.width, {.bias = true});
  h = block.dropout("attention.output.dropout", h, net.hidden_dropout);
  const TensorRef middle =
      block.add("residual_attention", block.drop_path("drop_path", h, drop_path), x);
  const auto inner = static_cast<std::int64_t>(stage.ratio * static_cast<double>(stage.width));
  h = block.linear("mlp.dense1", block.layer_norm("layer_norm_2", middle), inner, {.bias = true});
  h = convolved(block, h, "mlp.dwconv.dwconv", {graph.batch, inner, stage.rows, stage.columns},
                {.kernel = 3, .padding = 1, .groups = inner, .bias = true});
  h = block.activation("mlp.act", h, net.activation);
  h = block.dropout("mlp.dropout1", h, net.hidden_dropout);
  h = block.linear("mlp.dense2", h, stage.width, {.bias = true});
  h = block.dropout("mlp.dropout2", h, net.hidden_dropout);
  return block.finish(
      block.add("residual_mlp", block.drop_path("drop_path2", h, drop_path), middle));
}

// SegformerOverlapPatchEmbeddings.
TensorRef patches(BlockBuilder& block, TensorRef x, const Stage& stage, std::size_t index) {
  const std::string at = fmt::format("segformer.encoder.patch_embeddings.{}.", index);
  TensorRef h = block.conv(
      at + "proj", x, stage.width,
      {.kernel = stage.patch, .stride = stage.stride, .padding = stage.patch / 2, .bias = true});
  h = block.view(at + "tokens", h, {block.shape(h).at(0), stage.tokens(), stage.width}, true);
  return block.layer_norm(at + "layer_norm", h);
}

// layer_norm, then reshape(...).permute(0, 3, 1, 2).contiguous().
TensorRef finished_stage(BlockBuilder& block, const Graph& graph, const Stage& stage,
                         std::size_t index) {
  const std::string at = fmt::format("segformer.encoder.layer_norm.{}", index);
  const TensorRef h = block.layer_norm(at, block.input(rows_of(graph, stage)));
  const TensorRef picture = block.view(at + ".permute", h, picture_of(graph, stage), true);
  return block.contiguous(at + ".contiguous", picture);
}

// SegformerDecodeHead: each stage's rows projected and widened to the first one's picture.
void add_pixel_head(Graph& graph, const Segformer& net, BlockBuilder& block, TensorRef last) {
  const Stage& wide = net.stages.front();
  std::vector<TensorRef> parts;
  for (std::size_t i = 0; i < net.stages.size(); ++i) {
    const Stage& stage = net.stages[i];
    const std::string at = fmt::format("decode_head.linear_c.{}.", i);
    TensorRef h = i + 1 < net.stages.size() ? stage_output(i) : last;
    h = block.contiguous(at + "rows", block.view(at + "flatten", h, rows_of(graph, stage), true));
    h = block.linear(at + "proj", h, net.head_width, {.bias = true});
    h = block.view(at + "picture", h, {graph.batch, net.head_width, stage.rows, stage.columns});
    parts.insert(parts.begin(), block.upsample(at + "interpolate", h, wide.rows, wide.columns));
  }
  TensorRef x = block.concatenate("decode_head.cat", parts, 1);
  x = block.conv("decode_head.linear_fuse", x, net.head_width, {.kernel = 1});
  x = block.activation("decode_head.activation", block.batch_norm("decode_head.batch_norm", x),
                       ActivationKind::relu);
  x = block.dropout("decode_head.dropout", x, net.head_dropout);
  x = block.conv("decode_head.classifier", x, net.classes, {.kernel = 1, .bias = true});
  x = block.upsample("upsampled_logits", x, net.picture.height, net.picture.width);
  const Shape of = block.shape(x);
  x = block.view("pixels", x, {elements(of) / of.at(1), of.at(1)});
  x = block.loss(OperatorKind::classification_loss, {x, kClassLabels}, "loss");
  graph.segments.push_back({1, {block.finish(x)}});
}

std::vector<double> ratios_of(ConfigReader& config, std::size_t stages) {
  const std::vector<std::int64_t> given =
      config.whole_list({"mlp_ratios"}, std::vector<std::int64_t>(stages, 4), {1, 1024});
  return {given.begin(), given.end()};
}

Segformer read(ConfigReader& config, const SampleShape& sample) {
  Segformer net;
  const std::int64_t side = config.whole({"image_size"}, 224, kSideLimits);
  net.picture =
      model::picture_of(sample, side, side, config.whole({"num_channels"}, 3, kChannelLimits));
  const auto depths = config.whole_list({"depths"}, {2, 2, 2, 2}, kLayerLimits);
  const auto widths = config.whole_list({"hidden_sizes"}, {32, 64, 160, 256}, kChannelLimits);
  const auto heads = config.whole_list({"num_attention_heads"}, {1, 2, 5, 8}, kHeadLimits);
  const auto reductions = config.whole_list({"sr_ratios"}, {8, 4, 2, 1}, kSideLimits);
  const auto windows = config.whole_list({"patch_sizes"}, {7, 3, 3, 3}, kSideLimits);
  const auto strides = config.whole_list({"strides"}, {4, 2, 2, 2}, kSideLimits);
  const std::vector<double> ratios = ratios_of(config, depths.size());
  for (const auto* list : {&widths, &heads, &reductions, &windows, &strides}) {
    if (list->size() == depths.size() && ratios.size() == depths.size()) continue;
    config.reject("depths", fmt::format("{} stages", depths.size()),
                  "one entry of every list for each stage");
    return net;
  }
  std::int64_t rows = net.picture.height, columns = net.picture.width;
  for (std::size_t i = 0; i < depths.size(); ++i) {
    const ConvOptions window{.kernel = windows[i], .stride = strides[i], .padding = windows[i] / 2};
    rows = windows_of(rows, window);
    columns = windows_of(columns, window);
    net.stages.push_back({widths[i], depths[i], heads[i], reductions[i], windows[i], strides[i],
                          ratios[i], rows, columns});
    if (std::min(rows, columns) < reductions[i] || widths[i] % heads[i] != 0) {
      config.reject("sr_ratios", fmt::format("{}", reductions[i]),
                    fmt::format("at most the {} x {} patches of stage {}, and heads that divide "
                                "its {} channels",
                                rows, columns, i, widths[i]));
    }
  }
  net.activation = config.activation({"hidden_act"}, "gelu");
  net.hidden_dropout = config.probability({"hidden_dropout_prob"}, 0.0);
  net.attention_dropout = config.probability({"attention_probs_dropout_prob"}, 0.0);
  net.head_dropout = config.probability({"classifier_dropout_prob"}, 0.1);
  net.drop_path = config.probability({"drop_path_rate"}, 0.1);
  net.head_width = config.whole({"decoder_hidden_size"}, 256, kChannelLimits);
  net.classes = labels_of(config);
  const std::vector<std::string> classes = config.text_list({"architectures"});
  net.per_pixel = !classes.empty() && classes.front().ends_with("ForSemanticSegmentation");
  return net;
}

void add_stage_layers(Graph& graph, const Segformer& net, std::size_t index) {
  const Stage& stage = net.stages[index];
  std::vector<int> kinds(static_cast<std::size_t>(stage.depth), net.drop_path > 0.0 ? 1 : 0);
  if (index == 0) kinds.front() = 0;
  const std::string name = fmt::format("segformer.encoder.block.{}", index);
  add_layers(graph, kinds,
             [&](int drops) { return layer_of(graph, net, stage, name, drops != 0); });
  graph.layers += stage.depth;
}

}  // namespace

Graph build_segformer(ConfigReader& config, const SampleShape& sample) {
  const Segformer net = read(config, sample);
  Graph graph = start_picture_graph(config, sample, net.picture);
  if (net.stages.empty()) return graph;
  if (net.per_pixel) {
    graph.shared[1].shape = {graph.batch, net.picture.height, net.picture.width};
    graph.batch_tensors[1] = graph.shared[1];
    for (std::size_t i = 0; i + 1 < net.stages.size(); ++i) {
      graph.shared.push_back({fmt::format("hidden_states.{}", i), picture_of(graph, net.stages[i]),
                              ElementKind::real});
    }
  }
  BlockBuilder embed(graph, "embed");
  graph.segments.push_back({1, {embed.finish(patches(embed, kPixels, net.stages[0], 0))}});
  add_stage_layers(graph, net, 0);
  for (std::size_t i = 1; i < net.stages.size(); ++i) {
    BlockBuilder block(graph, "middle");
    TensorRef x = finished_stage(block, graph, net.stages[i - 1], i - 1);
    if (net.per_pixel) x = block.publish(stage_output(i - 1));
    graph.segments.push_back({1, {block.finish(patches(block, x, net.stages[i], i))}});
    add_stage_layers(graph, net, i);
  }
  graph.hidden = net.stages.back().width;
  BlockBuilder head(graph, "head");
  TensorRef x = finished_stage(head, graph, net.stages.back(), net.stages.size() - 1);
  if (net.per_pixel) {
    add_pixel_head(graph, net, head, x);
    return graph;
  }
  x = head.view("sequence_output", x, rows_of(graph, net.stages.back()));
  finish_classifier(graph, head, head.global_average_pool("mean", x), "classifier", net.classes);
  return graph;
}

}  // namespace steelyard::model
