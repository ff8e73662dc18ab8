#include "model/image_parts.h"

namespace steelyard::model {

Picture picture_of(const SampleShape& sample, std::int64_t own_height, std::int64_t own_width,
                   std::int64_t channels) {
  if (sample.height > 0 && sample.width > 0) return {sample.height, sample.width, channels};
  return {own_height, own_width, channels};
}

std::int64_t labels_of(ConfigReader& config) {
  constexpr std::int64_t kTransformersDefault = 2;
  const std::int64_t named = config.members("id2label").value_or(kTransformersDefault);
  return config.whole({"num_labels"}, named, kLabelLimits);
}

Graph start_picture_graph(const ConfigReader& config, const SampleShape& sample,
                          const Picture& picture) {
  Graph graph;
  graph.name = config.name();
  graph.batch = sample.batch;
  graph.image_height = picture.height;
  graph.image_width = picture.width;
  graph.shared = {{"pixel_values",
                   {graph.batch, picture.channels, picture.height, picture.width},
                   ElementKind::pixels},
                  {"labels", {graph.batch}, ElementKind::token_ids}};
  graph.batch_tensors = graph.shared;
  return graph;
}

void finish_classifier(Graph& graph, BlockBuilder& block, TensorRef pooled, const std::string& name,
                       std::int64_t classes) {
  const TensorRef logits = block.linear(name, pooled, classes, {.bias = true});
  const TensorRef loss =
      block.loss(OperatorKind::classification_loss, {logits, kClassLabels}, "loss");
  graph.segments.push_back({1, {block.finish(loss)}});
}

}  // namespace steelyard::model
