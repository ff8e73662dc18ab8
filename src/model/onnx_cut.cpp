// Where sizes begin to depend on data (NonZero, NonMaxSuppression, loops), a graph has no one size
// to plan. A detector ends so: boxes are chosen from what the network puts out, which its loss in
// training does not need. So the graph is cut there, and what was read there is put out. Behind the
// cut nothing may train.
#include <fmt/format.h>

#include <algorithm>

#include "model/onnx_lowering.h"

namespace steelyard::model {

void OnnxLowering::cut_at(const OnnxCall& call, const OnnxValue& value) {
  if (value.sequence != nullptr) {
    for (const OnnxValue& part : *value.sequence) cut_at(call, part);
    return;
  }
  if (value.is_weight() && value.rank() > 1) {
    return call.refuse(
        fmt::format("a weight that is read behind {}, whose result's size depends on data",
                    cut_behind_),
        "sizes that the shapes of the inputs decide, wherever weights are read",
        "export the part of the model that trains: experts chosen by token, region heads and masks "
        "by index have no one size to plan for");
  }
  const bool trains = value.is_tensor() && value.differentiable && value.numel() > 0;
  const bool known = std::any_of(cut_here_.begin(), cut_here_.end(), [&](const OnnxValue& other) {
    return other.ref.index == value.ref.index;
  });
  if (trains && !value.ref.shared && !known) cut_here_.push_back(value);
}

void OnnxLowering::cut_inside(const OnnxCall& call, const facts::OnnxGraph& inner,
                              const Scope& scope) {
  for (const facts::OnnxNode& node : inner.nodes) {
    for (const std::string& input : node.inputs) {
      const OnnxValue* value = find(input, scope);
      if (value != nullptr) cut_at(call, *value);
    }
    for (const facts::OnnxAttribute& attribute : node.attributes) {
      if (attribute.graph != nullptr) cut_inside(call, *attribute.graph, scope);
    }
  }
}

void OnnxLowering::cut(OnnxCall& call, const Scope& scope) {
  if (cut_behind_.empty()) {
    cut_behind_ = call.node.name.empty()
                      ? call.node.op_type
                      : fmt::format("{} ({})", call.node.name, call.node.op_type);
  }
  for (const OnnxValue* value : call.in) {
    if (value != nullptr) cut_at(call, *value);
  }
  for (const facts::OnnxAttribute& attribute : call.node.attributes) {
    if (attribute.graph != nullptr) cut_inside(call, *attribute.graph, scope);
  }
  for (OnnxValue& value : call.out) value.unknown = true;
}

}  // namespace steelyard::model
