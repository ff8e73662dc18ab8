#include "model/block_builder.h"

#include <algorithm>

namespace steelyard::model {

namespace {

// numpy's rule: right-aligned, a dimension of 1 stretches.
Shape broadcast(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape out = longer;
  const std::size_t offset = longer.size() - shorter.size();
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    out[offset + i] = std::max(longer[offset + i], shorter[i]);
  }
  return out;
}

}  // namespace

BlockBuilder::BlockBuilder(const Graph& graph, std::string name) : graph_(graph) {
  block_.name = std::move(name);
}

const Shape& BlockBuilder::shape(TensorRef ref) const {
  const auto& tensors = ref.shared ? graph_.shared : block_.tensors;
  return tensors.at(static_cast<std::size_t>(ref.index)).shape;
}

TensorRef BlockBuilder::tensor(std::string name, Shape shape, ElementKind kind) {
  block_.tensors.push_back({std::move(name), std::move(shape), kind});
  return {false, static_cast<std::int32_t>(block_.tensors.size()) - 1};
}

std::int32_t BlockBuilder::weight(std::string name, Shape shape, WeightRole role,
                                  std::string tied_to) {
  if (!shared_prefix_.empty() && tied_to.empty()) tied_to = shared_prefix_ + name;
  block_.weights.push_back({prefix_ + name, std::move(shape), role, std::move(tied_to)});
  return static_cast<std::int32_t>(block_.weights.size()) - 1;
}

Operator& BlockBuilder::append(OperatorKind kind, const std::string& name,
                               std::vector<TensorRef> inputs) {
  Operator& op = block_.operators.emplace_back();
  op.kind = kind;
  op.name = name;
  op.inputs = std::move(inputs);
  return op;
}

Operator& BlockBuilder::append_alike(OperatorKind kind, const std::string& name,
                                     std::vector<TensorRef> inputs) {
  Shape alike = shape(inputs.front());
  Operator& op = append(kind, name, std::move(inputs));
  op.outputs = {tensor(name, std::move(alike))};
  return op;
}

TensorRef BlockBuilder::input(Shape shape) {
  block_.input = tensor("hidden_states", std::move(shape));
  return block_.input;
}

TensorRef BlockBuilder::embedding(const std::string& name, TensorRef ids, std::int64_t rows,
                                  std::int64_t width, const std::string& tied_to) {
  Shape out = shape(ids);
  out.push_back(width);
  Operator& op = append(OperatorKind::embedding, name, {ids});
  op.weights = {weight(name + ".weight", {rows, width}, WeightRole::embedding, tied_to)};
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::position_embedding(const std::string& name, std::int64_t rows,
                                           std::int64_t width, std::int64_t samples,
                                           std::int64_t tokens) {
  Operator& op = append(OperatorKind::position_embedding, name, {});
  op.weights = {weight(name + ".weight", {rows, width}, WeightRole::embedding)};
  op.outputs = {tensor(name, {samples, tokens > 0 ? tokens : graph_.sequence, width})};
  return op.outputs.front();
}

TensorRef BlockBuilder::publish(TensorRef shared) {
  block_.operators.back().outputs = {shared};
  block_.tensors.pop_back();  // its own
  return shared;
}

TensorRef BlockBuilder::linear(const std::string& name, TensorRef in, std::int64_t out_features,
                               const LinearOptions& options) {
  const std::int64_t in_features = width(in);
  Shape out = shape(in);
  out.back() = out_features;
  Shape matrix =
      options.in_by_out ? Shape{in_features, out_features} : Shape{out_features, in_features};
  Operator& op = append(OperatorKind::linear, name, {in});
  op.replicated = options.replicated;
  op.gathers_output = options.gathers_output;
  op.weights = {weight(name + ".weight", std::move(matrix), WeightRole::matrix, options.tied_to)};
  if (options.bias) {
    const std::int64_t held = options.bias_size > 0 ? options.bias_size : out_features;
    op.weights.push_back(weight(name + ".bias", {held}, WeightRole::bias));
  }
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::rms_norm(const std::string& name, TensorRef in, bool unit_offset) {
  const std::int64_t features = width(in);
  Operator& op = append_alike(OperatorKind::rms_norm, name, {in});
  op.unit_offset = unit_offset;
  op.weights = {weight(name + ".weight", {features}, WeightRole::norm)};
  return op.outputs.front();
}

TensorRef BlockBuilder::unit_rms_norm(const std::string& name, TensorRef in) {
  return append_alike(OperatorKind::rms_norm, name, {in}).outputs.front();
}

TensorRef BlockBuilder::narrow_rms_norm(const std::string& name, TensorRef in) {
  const TensorRef out = rms_norm(name, in);
  block_.operators.back().keeps_narrow = true;
  return out;
}

TensorRef BlockBuilder::layer_norm(const std::string& name, TensorRef in,
                                   LayerNormOptions options) {
  const std::int64_t features = width(in);
  Operator& op = append_alike(OperatorKind::layer_norm, name, {in});
  if (options.weight) {
    op.weights.push_back(weight(name + ".weight", {features}, WeightRole::norm));
  }
  if (options.bias) {
    op.weights.push_back(weight(name + ".bias", {features}, WeightRole::bias));
  }
  return op.outputs.front();
}

TensorRef BlockBuilder::written_layer_norm(const std::string& name, TensorRef in,
                                           std::int64_t heads) {
  const std::int64_t features = width(in);
  Operator& op = append_alike(OperatorKind::layer_norm, name, {in});
  op.written_out = true;
  op.weights = {weight(name + ".weight", heads > 0 ? Shape{heads, features} : Shape{features},
                       WeightRole::norm)};
  return op.outputs.front();
}

TensorRef BlockBuilder::layer_norm_per_head(const std::string& name, TensorRef in) {
  const Shape in_shape = shape(in);  // [B,n,S,d]
  Operator& op = append_alike(OperatorKind::layer_norm, name, {in});
  for (std::int64_t head = 0; head < in_shape.at(1); ++head) {
    op.weights.push_back(weight(name + ".norms." + std::to_string(head) + ".weight",
                                {in_shape.back()}, WeightRole::norm));
  }
  return op.outputs.front();
}

void BlockBuilder::rotary_table(const std::string& name, TensorRef cos, TensorRef sin) {
  append(OperatorKind::rotary_table, name, {}).outputs = {cos, sin};
}

std::pair<TensorRef, TensorRef> BlockBuilder::own_rotary_table(const std::string& name,
                                                               TensorRef like, Shape of_table) {
  Operator& op = append(OperatorKind::rotary_table, name, {like});
  op.outputs = {tensor(name + ".cos", of_table), tensor(name + ".sin", of_table)};
  return {op.outputs[0], op.outputs[1]};
}

TensorRef BlockBuilder::values(const std::string& name, Shape shape, ElementKind kind) {
  Operator& op = append(OperatorKind::constant, name, {});
  op.outputs = {tensor(name, std::move(shape), kind)};
  return op.outputs.front();
}

std::pair<TensorRef, TensorRef> BlockBuilder::rotary(const std::string& name, TensorRef q,
                                                     TensorRef k, TensorRef cos, TensorRef sin,
                                                     std::int64_t dims, bool joins_rest) {
  Operator& op = append(OperatorKind::rotary, name, {q, k, cos, sin});
  op.rotary_dims = dims;
  op.joins_rest = joins_rest;
  op.outputs = {tensor(name + ".q", shape(q)), tensor(name + ".k", shape(k))};
  return {op.outputs[0], op.outputs[1]};
}

std::vector<TensorRef> BlockBuilder::split(
    const std::string& name, TensorRef in,
    const std::vector<std::pair<std::string, std::int64_t>>& parts, bool gathers_parts) {
  const Shape whole = shape(in);
  Operator& op = append(OperatorKind::split, name, {in});
  op.gathers_parts = gathers_parts;
  for (const auto& [part, size] : parts) {
    Shape out = whole;
    out.back() = size;
    op.outputs.push_back(tensor(name + "." + part, std::move(out)));
  }
  return op.outputs;
}

TensorRef BlockBuilder::heads(const std::string& name, TensorRef in, std::int64_t count) {
  const Shape flat = shape(in);  // [B,S,n*d]
  Operator& op = append(OperatorKind::heads, name, {in});
  op.outputs = {tensor(name, {flat.at(0), count, flat.at(1), flat.at(2) / count})};
  return op.outputs.front();
}

std::vector<TensorRef> BlockBuilder::latent_heads(const std::string& name, TensorRef q,
                                                  TensorRef key_value, TensorRef positions,
                                                  TensorRef table,
                                                  const AttentionShape& of_attention) {
  const Shape flat = shape(q);
  const Shape alike = {flat.at(0), of_attention.heads, flat.at(1), of_attention.head_dim};
  Shape value = alike;
  value.back() = of_attention.value_dim;
  const std::int64_t turning = width(positions);
  Operator& op = append(OperatorKind::latent_heads, name, {q, key_value, positions, table});
  op.attention = of_attention;
  op.rotary_dims = turning;
  op.outputs = {tensor(name + ".q", alike), tensor(name + ".k", alike),
                tensor(name + ".v", std::move(value))};
  return op.outputs;
}

std::vector<TensorRef> BlockBuilder::latent_heads(const std::string& name, TensorRef q,
                                                  TensorRef key_value, TensorRef positions,
                                                  TensorRef cos, TensorRef sin,
                                                  const AttentionShape& of_attention,
                                                  bool complex) {
  auto heads = latent_heads(name, q, key_value, positions, cos, of_attention);
  last().inputs.push_back(sin);
  last().turns_complex = complex;
  return heads;
}

TensorRef BlockBuilder::attention(const std::string& name, TensorRef q, TensorRef k, TensorRef v,
                                  const AttentionShape& shape_of_attention,
                                  const std::string& sink) {
  const Shape query = shape(q);
  const Shape value = shape(v);
  Operator& op = append(OperatorKind::attention, name, {q, k, v});
  op.attention = shape_of_attention;
  if (!sink.empty()) op.weights = {weight(sink, {query.at(1)}, WeightRole::other)};
  op.outputs = {tensor(name, {query.at(0), query.at(2), query.at(1) * value.at(3)})};
  return op.outputs.front();
}

TensorRef BlockBuilder::activation(const std::string& name, TensorRef in, ActivationKind kind) {
  Operator& op = append_alike(OperatorKind::activation, name, {in});
  op.activation = kind;
  if (kind == ActivationKind::xielu) {
    for (const char* part : {".alpha_p", ".alpha_n"}) {
      op.weights.push_back(weight(name + part, {1}, WeightRole::other));
    }
  }
  return op.outputs.front();
}

TensorRef BlockBuilder::gated_activation(const std::string& name, TensorRef gate, TensorRef up,
                                         ActivationKind kind) {
  Operator& op = append_alike(OperatorKind::gated_activation, name, {gate, up});
  op.activation = kind;
  return op.outputs.front();
}

TensorRef BlockBuilder::token_gate(const std::string& name, TensorRef gate, TensorRef x,
                                   ActivationKind kind) {
  Operator& op = append(OperatorKind::gated_activation, name, {gate, x});
  op.activation = kind;
  op.outputs = {tensor(name, shape(x))};
  return op.outputs.front();
}

TensorRef BlockBuilder::fused_gated_activation(const std::string& name, TensorRef gate_up,
                                               ActivationKind kind) {
  Shape half = shape(gate_up);
  half.back() /= 2;
  Operator& op = append(OperatorKind::gated_activation, name, {gate_up});
  op.activation = kind;
  op.fused_gate_up = true;
  op.outputs = {tensor(name, std::move(half))};
  return op.outputs.front();
}

TensorRef BlockBuilder::add(const std::string& name, TensorRef a, TensorRef b) {
  Shape out = broadcast(shape(a), shape(b));
  Operator& op = append(OperatorKind::add, name, {a, b});
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::widen(const std::string& name, TensorRef in) {
  return append_alike(OperatorKind::widen, name, {in}).outputs.front();
}

TensorRef BlockBuilder::narrow(const std::string& name, TensorRef in) {
  return append_alike(OperatorKind::narrow, name, {in}).outputs.front();
}

TensorRef BlockBuilder::scale(const std::string& name, TensorRef in, double constant) {
  Operator& op = append_alike(OperatorKind::scale, name, {in});
  op.constant = constant;
  return op.outputs.front();
}

TensorRef BlockBuilder::dropout(const std::string& name, TensorRef in, double probability) {
  if (probability == 0.0) return in;
  Operator& op = append_alike(OperatorKind::dropout, name, {in});
  op.probability = probability;
  return op.outputs.front();
}

TensorRef BlockBuilder::softcap(const std::string& name, TensorRef in, double cap) {
  if (cap == 0.0) return in;
  Operator& op = append_alike(OperatorKind::softcap, name, {in});
  op.constant = cap;
  return op.outputs.front();
}

TensorRef BlockBuilder::bias_activation(const std::string& name, TensorRef in, ActivationKind kind,
                                        bool gated, const std::string& bias) {
  Shape out = shape(in);
  const std::int64_t wide = out.back();
  if (gated) out.back() /= 2;
  Operator& op = append(OperatorKind::bias_activation, name, {in});
  op.activation = kind;
  op.fused_gate_up = gated;
  if (!bias.empty()) op.weights = {weight(bias, {wide}, WeightRole::bias)};
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::bias_dropout_add(const std::string& name, TensorRef in, TensorRef residual,
                                         double probability, const std::string& bias) {
  const std::int64_t wide = shape(in).back();
  Operator& op = append_alike(OperatorKind::bias_dropout_add, name, {in, residual});
  op.probability = probability;
  if (!bias.empty()) op.weights = {weight(bias, {wide}, WeightRole::bias)};
  return op.outputs.front();
}

TensorRef BlockBuilder::causal_lm_loss(TensorRef logits, TensorRef labels, bool widens_logits) {
  Operator& op = append(OperatorKind::causal_lm_loss, "loss", {logits, labels});
  op.widens_logits = widens_logits;
  op.outputs = {tensor("loss", {})};
  return op.outputs.front();
}

TensorRef BlockBuilder::loss(OperatorKind kind, std::vector<TensorRef> inputs,
                             const std::string& name) {
  Operator& op = append(kind, name, std::move(inputs));
  op.outputs = {tensor(name, {})};
  return op.outputs.front();
}

Block BlockBuilder::finish(TensorRef output) {
  block_.output = output;
  return std::move(block_);
}

}  // namespace steelyard::model
