#include "step/operators_generic.h"

#include <algorithm>
#include <utility>

#include "step/primitives.h"
#include "step/primitives_generic.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

using model::ElementKind;
using model::OperatorKind;
using model::Shape;

DType real_type(const Tape& tape) {
  return tape.arithmetic().autocast ? tape.arithmetic().ambient : tape.arithmetic().compute;
}

bool is_real(DType dtype) {
  return dtype != DType::boolean && dtype != DType::int64 && dtype != DType::int32;
}

DType promoted(DType a, DType b) {
  if (!is_real(a)) return b;
  if (!is_real(b)) return a;
  return facts::bytes_of(a) >= facts::bytes_of(b) ? a : b;
}

Outcome outcome_of(const Tape& tape, const OperatorCall& call, DType operands) {
  Outcome outcome;
  outcome.numel = model::elements(call.output_shapes[0]);
  outcome.dense = !call.op->transposed;
  outcome.differentiable = call.outputs.at(0)->kind == ElementKind::real;
  switch (call.outputs.at(0)->kind) {
    case ElementKind::boolean: outcome.dtype = DType::boolean; break;
    case ElementKind::index:
    case ElementKind::token_ids: outcome.dtype = DType::int64; break;
    default: outcome.dtype = is_real(operands) ? operands : real_type(tape);
  }
  return outcome;
}

Tensor operand(Tape& tape, const OperatorCall& call, std::size_t index) {
  Tensor x = call.inputs[index];
  const bool widens = call.op->wide && is_real(x.dtype);
  return widens ? to_fp32_if_autocast(tape, std::move(x)) : x;
}

Tensor run_unary(Tape& tape, const OperatorCall& call) {
  Tensor x = operand(tape, call, 0);
  const Outcome outcome = outcome_of(tape, call, x.dtype);
  return unary(tape, std::move(x), call.op->saves, outcome);
}

Tensor run_binary(Tape& tape, const OperatorCall& call) {
  Tensor a = operand(tape, call, 0);
  Tensor b = operand(tape, call, 1);
  const Outcome outcome = outcome_of(tape, call, promoted(a.dtype, b.dtype));
  return binary(tape, std::move(a), std::move(b), call.op->arithmetic, outcome);
}

Tensor run_select(Tape& tape, const OperatorCall& call) {
  const Outcome outcome =
      outcome_of(tape, call, promoted(call.inputs[1].dtype, call.inputs[2].dtype));
  return select(tape, call.inputs[0], call.inputs[1], call.inputs[2], outcome);
}

// A parameter as an operand; several that lie one behind the other are joined first.
Tensor parameter(Tape& tape, const OperatorCall& call) {
  Tensor value = call.weights.size() == 1 ? call.weights[0] : cat(tape, call.weights);
  const std::int64_t numel = model::elements(call.output_shapes[0]);
  if (numel < value.numel) return slice(tape, value, numel);
  return value;
}

Tensor run_matmul(Tape& tape, const OperatorCall& call) {
  const Shape& a = call.input_shapes[0];
  const Shape& b = call.input_shapes[1];
  const std::int64_t m = a.at(a.size() - 2);
  const std::int64_t k = a.back();
  const std::int64_t batch = k == 0 || m == 0 ? 1 : model::elements(a) / m / k;
  // What has to be copied first stands in the graph as an operator of its own.
  return matmul(tape, view(call.inputs[0], true), view(call.inputs[1], true), batch, m, b.back(),
                k);
}

Tensor run_softmax(Tape& tape, const OperatorCall& call) {
  const DType dtype = tape.arithmetic().autocast ? DType::fp32 : call.inputs[0].dtype;
  return softmax(tape, call.inputs[0], dtype, call.input_shapes[0].back());
}

Tensor run_slice(Tape& tape, const OperatorCall& call) {
  Tensor part = slice(tape, call.inputs[0], model::elements(call.output_shapes[0]));
  part.dense = !call.op->transposed;
  return part;
}

Tensor run_expand(Tape& tape, const OperatorCall& call) {
  const std::int64_t numel = model::elements(call.output_shapes[0]);
  const Tensor& x = call.inputs[0];
  return x.numel == 0 ? x : expand(tape, x, numel / x.numel);
}

Tensor run_gather(Tape& tape, const OperatorCall& call) {
  std::vector<Tensor> indices;
  if (call.inputs.size() > 1) indices.push_back(call.inputs[1]);
  return index(tape, call.inputs[0], indices, model::elements(call.output_shapes[0]));
}

Tensor run_scatter(Tape& tape, const OperatorCall& call) {
  return scatter(tape, call.inputs[0], call.inputs[1],
                 call.inputs.size() > 2 ? call.inputs[2] : Tensor());
}

std::vector<Tensor> run_top(Tape& tape, const OperatorCall& call) {
  const std::int64_t kept = model::elements(call.output_shapes[0]);
  const std::int64_t numel = call.inputs[0].numel;
  if (kept == 0 || numel == 0) return {call.inputs[0], call.inputs[0]};
  // Rows are whatever lies beside the chosen dimension.
  TopK best = topk(tape, call.inputs[0], numel, kept);
  return {std::move(best.values), std::move(best.indices)};
}

std::vector<Tensor> run_recurrent(Tape& tape, const OperatorCall& call) {
  const Shape& in = call.input_shapes[0];
  const Shape& out = call.output_shapes[0];  // [S,D,B,H]
  RecurrentDims dims;
  dims.steps = in.at(0);
  dims.samples = in.at(1);
  dims.inputs = in.at(2);
  dims.directions = out.at(1);
  dims.hidden = out.at(3);
  dims.gates = call.op->groups;
  std::vector<Tensor> results = recurrent(tape, call.inputs[0], call.weights, dims);
  if (call.output_shapes.size() > 2) results.push_back(results[1]);  // an LSTM's cell
  return results;
}

Tensor constant(Tape& tape, const OperatorCall& call) {
  const DType dtype = call.op->wide_tables ? DType::fp32 : real_type(tape);
  const Outcome outcome = outcome_of(tape, call, dtype);
  return tape.allocate(outcome.numel, outcome.dtype, "constant");
}

}  // namespace

std::vector<Tensor> run_generic_operator(Tape& tape, const OperatorCall& call) {
  switch (call.op->kind) {
    case OperatorKind::parameter: return {parameter(tape, call)};
    case OperatorKind::constant: return {constant(tape, call)};
    case OperatorKind::unary:
    case OperatorKind::reduce: return {run_unary(tape, call)};
    case OperatorKind::binary: return {run_binary(tape, call)};
    case OperatorKind::select: return {run_select(tape, call)};
    case OperatorKind::softmax: return {run_softmax(tape, call)};
    case OperatorKind::matmul: return {run_matmul(tape, call)};
    case OperatorKind::slice: return {run_slice(tape, call)};
    case OperatorKind::expand: return {run_expand(tape, call)};
    case OperatorKind::gather: return {run_gather(tape, call)};
    case OperatorKind::scatter: return {run_scatter(tape, call)};
    case OperatorKind::top: return run_top(tape, call);
    case OperatorKind::recurrent: return run_recurrent(tape, call);
    default: return {};
  }
}

Tensor outputs_loss(Tape& tape, const OperatorCall& call) {
  const bool labelled = call.op->groups > 1;  // the last input are the labels of the first
  const std::size_t outputs = call.inputs.size() - (labelled ? 1 : 0);
  Tensor loss;
  for (std::size_t i = 0; i < outputs; ++i) {
    const Tensor& output = call.inputs[i];
    Tensor part;
    if (i == 0 && labelled) {
      const Tensor& labels = call.inputs.back();
      part = cross_entropy(tape, output, labels, labels.numel);
    } else {
      part = sum_last(tape, to_fp32_if_autocast(tape, output),
                      std::max<std::int64_t>(output.numel, 1));
    }
    loss = loss ? add(tape, std::move(loss), std::move(part)) : std::move(part);
  }
  return loss;
}

}  // namespace steelyard::step
