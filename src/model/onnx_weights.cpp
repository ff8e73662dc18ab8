// Which of an ONNX graph's tensors are weights, and under which names.
#include "model/onnx_lowering.h"

namespace steelyard::model {

using facts::OnnxTensor;

std::int32_t OnnxLowering::weight(const OnnxValue& value, WeightRole role) {
  const OnnxTensor* tensor = first_of(*value.initializers.front());
  const auto [entry, fresh] =
      weights_.emplace(tensor, static_cast<std::int32_t>(block_.weights.size()));
  if (fresh) block_.weights.push_back({tensor->name, tensor->dims, role, {}});
  return entry->second;
}

// An export for inference turns a linear's matrix round, and so stores a tied one twice.
const OnnxTensor* OnnxLowering::first_of(const OnnxTensor& tensor) {
  if (tensor.diagonal.empty()) return &tensor;
  const auto [entry, fresh] = matrices_.emplace(tensor.diagonal, &tensor);
  const OnnxTensor& first = *entry->second;
  const bool turned =
      first.dims.size() == 2 && first.dims[0] == tensor.dims[1] && first.dims[1] == tensor.dims[0];
  const bool same = turned || first.dims == tensor.dims;
  return same && first.element == tensor.element ? &first : &tensor;
}

void OnnxLowering::add_weight(OnnxValue& value, const std::string& name) {
  if (value.kind != ElementKind::real || value.rank() == 0 || value.numel() < 2) return;
  OnnxTensor& tensor = renamed_.emplace_back();
  tensor.name = name;
  tensor.element = 1;
  tensor.dims = value.shape;
  value.initializers = {&tensor};
}

void OnnxLowering::add_buffer(const OnnxValue& value) {
  if (value.is_tensor()) return;
  block_.buffers.push_back({value.name, value.shape, value.kind});
}

const OnnxTensor* OnnxLowering::renamed(const OnnxTensor& tensor, const std::string& name) {
  renamed_.push_back(tensor);
  renamed_.back().name = name;
  return &renamed_.back();
}

// What stands in a weight's place is one, though a node makes it.
void OnnxLowering::adopt_weights(OnnxCall& call) {
  const std::string& type = call.node.op_type;
  // A norm of what no data is in (standardized weights) has ones and zeros for scale and bias.
  const bool norms = type == "BatchNormalization" && call.has(0) && call.at(0).of_data;
  const bool holds = type == "Conv" || type == "ConvTranspose" || type == "Gemm" || norms;
  for (std::size_t i = 1; holds && i <= 2; ++i) {
    if (!call.has(i) || !call.at(i).is_constant() || call.at(i).name.empty()) continue;
    const auto [entry, fresh] = adopted_.emplace(call.at(i).name, call.at(i));
    if (fresh) add_weight(entry->second, call.at(i).name);
    call.in[i] = &entry->second;
  }
}

}  // namespace steelyard::model
