// The end of a lowered ONNX graph: what a gradient can come from becomes a loss.
#include "model/onnx_lowering.h"

#include <fmt/format.h>

#include <algorithm>

namespace steelyard::model {

using facts::OnnxNode;

// The loss over every output that a gradient can come from: cross entropy of the first where it has
// rows of classes, else its sum; the sums of the others.
void OnnxLowering::finish(const Scope& scope) {
  OnnxNode node;
  node.name = "loss";
  OnnxCall call{*this, node, {}, {}, 0};
  std::vector<const OnnxValue*> outputs;
  for (const facts::OnnxValueInfo& output : model_.graph.outputs) {
    const OnnxValue* value = find(output.name, scope);
    if (value == nullptr) {
      return refuse({.code = ErrorCode::bad_input,
                     .subject = fmt::format("{}: output {}", name_, output.name),
                     .found = "a name that nothing makes",
                     .accepted = "the name of a node's output"});
    }
    if (value->is_tensor() && value->differentiable && value->numel() > 0) outputs.push_back(value);
  }
  for (const OnnxValue& value : cut_here_) {
    const bool known = std::any_of(outputs.begin(), outputs.end(), [&](const OnnxValue* output) {
      return output->ref.index == value.ref.index;
    });
    if (!known) outputs.push_back(&value);
  }
  if (outputs.empty()) {
    return refuse({.code = ErrorCode::bad_input,
                   .subject = name_,
                   .found = "no output of real numbers that depends on a weight",
                   .accepted = "a model that can be trained"});
  }
  const OnnxValue& first = *outputs.front();
  if (moves_batch() && first.places.empty()) {
    return refuse_batch(call, fmt::format("lost on the way to output {}", first.name));
  }
  std::vector<TensorRef> refs;
  for (const OnnxValue* value : outputs) refs.push_back(value->ref);
  const bool rows = (first.rank() == 2 || first.rank() == 3) && first.shape.back() > 1;
  if (rows) {
    const TensorInfo labels{"labels", {first.numel() / first.shape.back()}, ElementKind::token_ids};
    graph.shared.push_back(labels);
    graph.batch_tensors.push_back(labels);
    refs.push_back({true, static_cast<std::int32_t>(graph.shared.size()) - 1});
    const auto places = places_of_view(first.shape, first.places,
                                       {labels.shape[0], first.shape.back()}, fixed_batch);
    shared_places_.push_back(places.value_or(BatchPlaces()));
  }
  append(OperatorKind::outputs_loss, call, std::move(refs)).groups = rows ? 2 : 1;
  block_.output = result(call, {}).ref;
  if (moves_batch()) move_batch();
}

}  // namespace steelyard::model
