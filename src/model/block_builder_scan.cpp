// State-space mixers (state-spaces/mamba, modules/mamba_simple.py and mamba2.py), and what joins
// the prediction of further tokens to the rest of a model.
#include <algorithm>
#include <utility>

#include "model/block_builder.h"

namespace steelyard::model {

TensorRef BlockBuilder::state_scan(const std::string& module, TensorRef in, const ScanShape& scan,
                                   const ScanOptions& options) {
  const std::int64_t inner = scan.channels();
  const std::int64_t mixed = inner + 2 * scan.groups * scan.state;
  Shape out = shape(in);
  out.back() = options.project.empty() ? inner : options.width;
  Operator& op = append(OperatorKind::state_scan, module + ".scan", {in});
  op.scan = scan;
  op.weights = {weight(module + ".conv1d.weight", {mixed, 1, options.taps}, WeightRole::other)};
  if (options.conv_bias) {
    op.weights.push_back(weight(module + ".conv1d.bias", {mixed}, WeightRole::bias));
  }
  for (const char* name : {".dt_bias", ".A_log", ".D"}) {
    op.weights.push_back(weight(module + name, {scan.heads}, WeightRole::other));
  }
  if (!options.norm.empty()) {
    op.weights.push_back(weight(options.norm + ".weight", {inner}, WeightRole::norm));
  }
  if (!options.project.empty()) {
    op.weights.push_back(
        weight(options.project + ".weight", {options.width, inner}, WeightRole::matrix));
    if (options.project_bias) {
      op.weights.push_back(weight(options.project + ".bias", {options.width}, WeightRole::bias));
    }
  }
  op.outputs = {tensor(op.name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::delta_rule(const std::string& module, const std::vector<TensorRef>& in,
                                   const ScanShape& scan, std::int64_t taps) {
  Shape out = shape(in.front());
  out.back() = scan.channels();
  Operator& op = append(OperatorKind::delta_rule, module + ".delta_rule", in);
  op.scan = scan;
  const std::int64_t mixed = 2 * scan.groups * scan.state + scan.channels();
  op.weights = {weight(module + ".conv1d.weight", {mixed, 1, taps}, WeightRole::other),
                weight(module + ".dt_bias", {scan.heads}, WeightRole::other),
                weight(module + ".A_log", {scan.heads}, WeightRole::other),
                weight(module + ".norm.weight", {scan.head_dim}, WeightRole::norm)};
  op.outputs = {tensor(op.name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::selective_scan(const std::string& module, TensorRef in,
                                       const ScanShape& scan, const ScanOptions& options) {
  const std::int64_t inner = scan.channels();
  Shape out = shape(in);
  out.back() = options.width;
  Operator& op = append(OperatorKind::selective_scan, module + ".scan", {in});
  op.scan = scan;
  op.weights = {weight(module + ".conv1d.weight", {inner, 1, options.taps}, WeightRole::other)};
  if (options.conv_bias) {
    op.weights.push_back(weight(module + ".conv1d.bias", {inner}, WeightRole::bias));
  }
  op.weights.push_back(weight(module + ".x_proj.weight", {scan.time_rank + 2 * scan.state, inner},
                              WeightRole::matrix));
  op.weights.push_back(
      weight(module + ".dt_proj.weight", {inner, scan.time_rank}, WeightRole::matrix));
  op.weights.push_back(weight(module + ".dt_proj.bias", {inner}, WeightRole::bias));
  op.weights.push_back(weight(module + ".A_log", {inner, scan.state}, WeightRole::other));
  op.weights.push_back(weight(module + ".D", {inner}, WeightRole::other));
  op.weights.push_back(
      weight(options.project + ".weight", {options.width, inner}, WeightRole::matrix));
  if (options.project_bias) {
    op.weights.push_back(weight(options.project + ".bias", {options.width}, WeightRole::bias));
  }
  if (scan.apart) {
    const auto norm = [&](const char* part, std::int64_t features) {
      op.weights.push_back(weight(module + part + ".weight", {features}, WeightRole::norm));
    };
    norm(".dt_layernorm", scan.time_rank);
    norm(".b_layernorm", scan.state);
    norm(".c_layernorm", scan.state);
  }
  op.outputs = {tensor(op.name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::grouped_rms_norm(const std::string& name, TensorRef in,
                                         std::int64_t groups) {
  const TensorRef out = rms_norm(name, in);
  block_.operators.back().groups = groups;
  return out;
}

TensorRef BlockBuilder::join(const std::string& name, const std::vector<TensorRef>& parts,
                             std::size_t along) {
  Shape out = shape(parts.front());
  for (std::size_t i = 1; i < parts.size(); ++i) out.at(along) += shape(parts[i]).at(along);
  Operator& op = append(OperatorKind::join, name, parts);
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

std::vector<TensorRef> BlockBuilder::token_chunks(const std::string& name, TensorRef in,
                                                  std::int64_t count) {
  Shape part = shape(in);
  part.at(1) /= count;
  Operator& op = append(OperatorKind::split, name, {in});
  for (std::int64_t i = 0; i < count; ++i) {
    op.outputs.push_back(tensor(name + "." + std::to_string(i), part));
  }
  return op.outputs;
}

TensorRef BlockBuilder::attach_loss(const std::string& name, TensorRef in, TensorRef loss) {
  return append_alike(OperatorKind::attach_loss, name, {in, loss}).outputs.front();
}

void BlockBuilder::share_weight(const std::string& name) {
  Operator& op = block_.operators.back();
  const auto first = std::find_if(block_.operators.begin(), block_.operators.end(),
                                  [&](const Operator& other) { return other.name == name; });
  block_.weights.resize(block_.weights.size() - op.weights.size());
  op.weights = first->weights;
}

}  // namespace steelyard::model
