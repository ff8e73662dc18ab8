// Operators of models that read pictures and text.
#include <utility>

#include "model/block_builder.h"

namespace steelyard::model {

TensorRef BlockBuilder::merge_pictures(const std::string& name, TensorRef text, TensorRef features,
                                       TensorRef ids) {
  return append_alike(OperatorKind::merge_pictures, name, {text, features, ids}).outputs.front();
}

std::pair<TensorRef, TensorRef> BlockBuilder::rotary_sections(const std::string& name,
                                                              TensorRef cos, TensorRef sin) {
  const Shape whole = shape(cos);
  const Shape own(whole.begin() + 1, whole.end());
  Operator& op = append(OperatorKind::rotary_sections, name, {cos, sin});
  op.outputs = {tensor(name + ".cos", own), tensor(name + ".sin", own)};
  return {op.outputs[0], op.outputs[1]};
}

std::pair<TensorRef, TensorRef> BlockBuilder::wide_rotary(const std::string& name, TensorRef q,
                                                          TensorRef k, TensorRef cos,
                                                          TensorRef sin) {
  const auto turned = rotary(name, q, k, cos, sin, width(q));
  block_.operators.back().wide_tables = true;
  return turned;
}

TensorRef BlockBuilder::unit_length(const std::string& name, TensorRef in) {
  return append_alike(OperatorKind::unit_length, name, {in}).outputs.front();
}

TensorRef BlockBuilder::probe_attention(const std::string& name, TensorRef in, std::int64_t heads,
                                        const std::string& probe) {
  const Shape tokens = shape(in);
  const std::int64_t hidden = tokens.back();
  Operator& op = append(OperatorKind::probe_attention, name, {in});
  op.attention.heads = op.attention.kv_heads = heads;
  op.attention.head_dim = hidden / heads;
  op.attention.causal = false;
  op.weights = {weight(probe, {1, 1, hidden}, WeightRole::other),
                weight(name + ".in_proj_weight", {3 * hidden, hidden}, WeightRole::matrix),
                weight(name + ".in_proj_bias", {3 * hidden}, WeightRole::bias),
                weight(name + ".out_proj.weight", {hidden, hidden}, WeightRole::matrix),
                weight(name + ".out_proj.bias", {hidden}, WeightRole::bias)};
  op.outputs = {tensor(name, {tokens.at(0), 1, hidden})};
  return op.outputs.front();
}

TensorRef BlockBuilder::contrastive_loss(TensorRef text, TensorRef pictures,
                                         const std::string& scale, Shape of_weights,
                                         const std::string& bias) {
  Operator& op = append(OperatorKind::contrastive_loss, "loss", {text, pictures});
  op.weights = {weight(scale, of_weights, WeightRole::other)};
  if (!bias.empty()) op.weights.push_back(weight(bias, std::move(of_weights), WeightRole::bias));
  op.outputs = {tensor("loss", {})};
  return op.outputs.front();
}

TensorRef BlockBuilder::gather_tokens(const std::string& name, TensorRef in, Shape out) {
  Operator& op = append(OperatorKind::gather, name, {in});
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::tokens_from(const std::string& name, TensorRef in, std::int64_t first) {
  Shape out = shape(in);
  out.at(1) -= first;
  Operator& op = append(OperatorKind::slice, name, {in});
  op.transposed = true;
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::patches_of(const std::string& name, TensorRef in, Shape of_weight,
                                   Shape out, bool bias) {
  const TensorRef made = conv_as(name, in, std::move(of_weight), std::move(out));
  if (!bias) {
    block_.operators.back().weights.pop_back();
    block_.weights.pop_back();
  }
  return made;
}

void BlockBuilder::leave_unread(std::size_t from) {
  for (std::size_t i = from; i < block_.weights.size(); ++i) block_.weights[i].unread = true;
}

}  // namespace steelyard::model
