// Operators of diffusion transformers.
#include <utility>

#include "model/block_builder.h"

namespace steelyard::model {

std::vector<TensorRef> BlockBuilder::split_tokens(
    const std::string& name, TensorRef in,
    const std::vector<std::pair<std::string, std::int64_t>>& parts, bool own_parts) {
  const Shape whole = shape(in);
  Operator& op = append(OperatorKind::split, name, {in});
  op.own_parts = own_parts;
  for (const auto& [part, tokens] : parts) {
    Shape out = whole;
    out.at(1) = tokens;
    op.outputs.push_back(tensor(name + "." + part, std::move(out)));
  }
  return op.outputs;
}

std::vector<TensorRef> BlockBuilder::chunk(const std::string& name, TensorRef in,
                                           std::int64_t count) {
  const std::int64_t part = width(in) / count;
  std::vector<std::pair<std::string, std::int64_t>> parts;
  for (std::int64_t i = 0; i < count; ++i) parts.emplace_back(std::to_string(i), part);
  return split(name, in, parts);
}

TensorRef BlockBuilder::modulate(const std::string& name, TensorRef in, TensorRef scale,
                                 TensorRef shift) {
  return append_alike(OperatorKind::modulate, name, {in, scale, shift}).outputs.front();
}

TensorRef BlockBuilder::add_parts(const std::string& name, TensorRef in,
                                  const std::vector<TensorRef>& parts) {
  std::vector<TensorRef> inputs = {in};
  inputs.insert(inputs.end(), parts.begin(), parts.end());
  return append_alike(OperatorKind::add_parts, name, std::move(inputs)).outputs.front();
}

std::pair<TensorRef, TensorRef> BlockBuilder::rotary_pairs(const std::string& name, TensorRef q,
                                                           TensorRef k, TensorRef cos,
                                                           TensorRef sin) {
  const auto turned = rotary(name, q, k, cos, sin, width(q));
  block_.operators.back().turns_pairs = true;
  return turned;
}

TensorRef BlockBuilder::rms_norm_of_input(const std::string& name, TensorRef in, bool affine) {
  const std::int64_t features = width(in);
  Operator& op = append_alike(OperatorKind::rms_norm, name, {in});
  op.scales_input = true;
  if (affine) op.weights = {weight(name + ".weight", {features}, WeightRole::norm)};
  return op.outputs.front();
}

void BlockBuilder::wide_rotary_table(const std::string& name, TensorRef cos, TensorRef sin) {
  rotary_table(name, cos, sin);
  block_.operators.back().wide_tables = true;
}

void BlockBuilder::share(TensorRef made, TensorRef shared) {
  for (TensorRef& out : block_.operators.back().outputs) {
    if (out.index == made.index && !out.shared) out = shared;
  }
  // What the operator had made instead, its only output, was the block's last tensor.
  if (made.index + 1 == static_cast<std::int32_t>(block_.tensors.size())) block_.tensors.pop_back();
}

TensorRef BlockBuilder::concatenate_last(const std::string& name, TensorRef a, TensorRef b) {
  Shape out = shape(a);
  out.back() += width(b);
  Operator& op = append(OperatorKind::concatenate, name, {a, b});
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::concatenate_rows(const std::string& name, TensorRef a, TensorRef b) {
  Shape out = shape(a);
  out.at(2) += shape(b).at(2);
  Operator& op = append(OperatorKind::concatenate, name, {a, b});
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::conv_as(const std::string& name, TensorRef in, Shape of_weight, Shape out) {
  const std::int64_t channels = of_weight.front();
  Operator& op = append(OperatorKind::conv, name, {in});
  op.weights = {weight(name + ".weight", std::move(of_weight), WeightRole::matrix),
                weight(name + ".bias", {channels}, WeightRole::bias)};
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

void BlockBuilder::plain_weight(const std::string& name, Shape of_weight, WeightRole role) {
  (void)weight(name, std::move(of_weight), role);
}

TensorRef BlockBuilder::add_buffer(const std::string& name, TensorRef in, Shape of_buffer) {
  block_.buffers.push_back({name, std::move(of_buffer), ElementKind::real});
  return scale(name, in, 1.0);  // a sum with a constant tensor: nothing is kept
}

}  // namespace steelyard::model
