// ONNX graphs by hand, for tests.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "facts/onnx.h"
#include "model/graph.h"

namespace steelyard::model {

using facts::OnnxModel;
using facts::OnnxNode;
using facts::OnnxTensor;
using facts::OnnxValueInfo;

inline OnnxTensor floats(const std::string& name, Shape dims) {
  OnnxTensor tensor;
  tensor.name = name;
  tensor.element = 1;
  tensor.dims = std::move(dims);
  return tensor;
}

inline OnnxTensor wholes(const std::string& name, std::vector<std::int64_t> values) {
  OnnxTensor tensor;
  tensor.name = name;
  tensor.element = 7;
  tensor.dims = {std::ssize(values)};
  tensor.wholes = std::move(values);
  return tensor;
}

inline OnnxValueInfo input(const std::string& name, const Shape& dims) {
  OnnxValueInfo info;
  info.name = name;
  info.is_tensor = info.has_shape = true;
  info.element = 1;
  for (const std::int64_t dim : dims) info.dims.push_back({dim, ""});
  return info;
}

inline OnnxNode node(const std::string& type, std::vector<std::string> inputs,
                     std::vector<std::string> outputs) {
  OnnxNode result;
  result.name = type + "_1";
  result.op_type = type;
  result.inputs = std::move(inputs);
  result.outputs = std::move(outputs);
  return result;
}

}  // namespace steelyard::model
