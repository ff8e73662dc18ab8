// What an ONNX file says, without its weights: nodes, names, shapes, and the values of small
// constants (shapes, axes, scales). Field by field as in onnx.proto, of the ONNX project.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace steelyard::facts {

// TensorProto.DataType: 1 float, 7 int64, 9 bool, 10 float16, 16 bfloat16 ...
using OnnxElement = std::int32_t;

struct OnnxTensor {
  std::string name;
  OnnxElement element = 0;
  std::vector<std::int64_t> dims;  // each >= 0; their product is countable
  // Values of small tensors alone: whole numbers and booleans | real numbers.
  std::optional<std::vector<std::int64_t>> wholes;
  std::optional<std::vector<double>> reals;
  // Bits of some elements on the diagonal of a large matrix: its transpose has the same. Empty
  // where they are all alike.
  std::vector<std::uint64_t> diagonal;
  std::string external;  // file beside the model that holds the data; empty: in the model
};

struct OnnxGraph;

struct OnnxAttribute {
  std::string name;
  std::optional<std::int64_t> whole;
  std::optional<double> real;
  std::optional<std::string> text;
  std::vector<std::int64_t> wholes;
  std::vector<double> reals;
  std::shared_ptr<const OnnxTensor> tensor;
  std::shared_ptr<const OnnxGraph> graph;
  std::string of_function;  // ref_attr_name: takes its value from the function's attribute
};

struct OnnxNode {
  std::string name, op_type, domain;
  std::vector<std::string> inputs, outputs;  // empty names: optional ones that are not there
  std::vector<OnnxAttribute> attributes;
};

struct OnnxDimension {
  std::optional<std::int64_t> value;
  std::string symbol;  // "batch"; empty: nothing said
};

struct OnnxValueInfo {
  std::string name;
  bool is_tensor = false;  // else a sequence, a map ...
  OnnxElement element = 0;
  bool has_shape = false;
  std::vector<OnnxDimension> dims;
};

struct OnnxGraph {
  std::string name;
  std::vector<OnnxNode> nodes;
  std::vector<OnnxTensor> initializers;
  std::vector<OnnxValueInfo> inputs, outputs;
  // Stored tensors that do not train, where the exporter says so.
  std::set<std::string, std::less<>> buffers;
  bool sparse = false;  // holds sparse initializers, which nobody here reads
};

// Operators written as graphs of others.
struct OnnxFunction {
  std::string name, domain;
  std::vector<std::string> inputs, outputs;
  std::vector<OnnxAttribute> defaults;
  std::vector<OnnxNode> nodes;
};

struct OnnxOperatorSet {
  std::string domain;  // empty: ai.onnx
  std::int64_t version = 0;
};

struct OnnxModel {
  std::int64_t ir_version = 0;
  std::string producer;
  std::vector<OnnxOperatorSet> operator_sets;
  OnnxGraph graph;
  std::vector<OnnxFunction> functions;
};

}  // namespace steelyard::facts
