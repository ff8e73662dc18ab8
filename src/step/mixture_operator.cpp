// MixtralSparseMoeBlock (transformers 4: modeling_mixtral.py): a loop over the experts, each of
// which gathers its tokens and adds its results back.
#include <utility>

#include "step/dispatched_experts.h"
#include "step/operators_image.h"
#include "step/primitives.h"
#include "step/primitives_fp8.h"
#include "step/primitives_image.h"
#include "step/primitives_quantized.h"

namespace steelyard::step {

namespace {

using model::OperatorKind;

// One of the operator's linears, over a quantized matrix when they are held so.
Tensor part(Tape& tape, const OperatorCall& call, const Tensor& x, std::size_t weight,
            std::int64_t inputs, std::int64_t outputs) {
  const bool router_of_tokens = call.op->kind == OperatorKind::router;
  if (tape.arithmetic().fp8.on() && !router_of_tokens && fits_fp8(inputs, outputs)) {
    return fp8_linear(tape, x, call.weights[weight], Tensor(), inputs, outputs, false);
  }
  if (call.quantization.kind == facts::BaseQuantization::none) {
    return linear(tape, x, call.weights[weight], Tensor(), inputs, outputs);
  }
  return quantized_linear(tape, x, Tensor(), inputs, outputs, call.quantization);
}

std::vector<Tensor> router(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  Tensor logits = part(tape, call, x, 0, hidden, mixture.experts);
  if (mixture.routing == model::Routing::softmax_of_chosen) {
    // GraniteMoeTopKGating.forward: the chosen logits in fp32, then their softmax.
    logits = to(tape, std::move(logits), DType::fp32);
    TopK best = topk(tape, std::move(logits), mixture.experts, mixture.chosen);
    Tensor gates = softmax(tape, std::move(best.values), DType::fp32);
    return {to(tape, std::move(gates), x.dtype), best.indices};
  }
  Tensor probabilities = softmax(tape, std::move(logits), DType::fp32);
  TopK best = topk(tape, std::move(probabilities), mixture.experts, mixture.chosen);
  if (mixture.routing == model::Routing::softmax) {  // norm_topk_prob = false
    return {to(tape, std::move(best.values), x.dtype), best.indices};
  }
  // routing_weights /= routing_weights.sum(dim=-1, keepdim=True). A division saves both operands,
  // as a product does.
  const Tensor sum = sum_last(tape, best.values, mixture.chosen);
  Tensor weights = mul(tape, std::exchange(best.values, Tensor()), sum);
  return {to(tape, std::move(weights), x.dtype), best.indices};
}

bool dispatches(const OperatorCall& call) {
  if (call.op->mixture.code == model::ExpertCode::parallel) return false;
  return call.variants->experts == Experts::dispatched || call.op->mixture.ranks > 1 ||
         call.op->mixture.feature_ranks > 1;
}

// one_hot, then torch.where for each expert.
std::vector<Tensor> expert_assignment(Tape& tape, const OperatorCall& call) {
  if (dispatches(call)) return std::vector<Tensor>(call.output_shapes.size());
  const std::int64_t choices = call.inputs[0].numel;
  tape.begin_operation(OperationKind::other, {&call.inputs[0]});
  const Tensor mask =
      tape.allocate(checked_multiply(choices, call.op->mixture.experts), DType::int64, "one_hot");
  tape.pointwise("one_hot", bytes_of(mask));
  std::vector<Tensor> assigned;
  for (const model::Shape& shape : call.output_shapes) {
    assigned.push_back(tape.allocate(model::elements(shape), DType::int64, "nonzero"));
  }
  tape.pointwise("nonzero", bytes_of(mask));
  return assigned;
}

Tensor experts(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const Tensor& routing = call.inputs[1];
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  const std::int64_t wide = mixture.intermediate;
  tape.begin_operation(OperationKind::other);
  Tensor out = tape.allocate(x.numel, x.dtype, "zeros");
  tape.pointwise("zeros", bytes_of(out));
  for (std::int64_t e = 0; e < mixture.experts; ++e) {
    const auto at = static_cast<std::size_t>(e);
    const Tensor& slots = call.inputs[2 + 2 * at];
    const Tensor& tokens = call.inputs[3 + 2 * at];
    const std::size_t w1 = 3 * at;  // then w2, w3
    const Tensor own = index(tape, x, {tokens}, checked_multiply(tokens.numel, hidden));
    Tensor gate = activation(tape, call.op->activation, part(tape, call, own, w1, hidden, wide));
    Tensor up = part(tape, call, own, w1 + 2, hidden, wide);
    Tensor h = mul(tape, std::move(gate), std::move(up));
    h = part(tape, call, h, w1 + 1, wide, hidden);
    h = mul(tape, std::move(h), index(tape, routing, {tokens, slots}, tokens.numel));
    out = index_add_in_place(tape, std::move(out), tokens, to(tape, std::move(h), x.dtype));
  }
  return out;
}

// torch.cat of tensors of rows: gradients are views of its own.
Tensor joined(Tape& tape, const std::vector<Tensor>& parts) {
  tape.begin_operation(OperationKind::pointwise);
  std::int64_t numel = 0;
  std::vector<Edge> edges;
  std::vector<std::int64_t> numels;
  bool tracked = false;
  for (const Tensor& each : parts) {
    numel += each.numel;
    numels.push_back(each.numel);
    edges.push_back(Tape::edge_of(each));
    tracked = tracked || tape.tracks({&each});
  }
  Tensor y = tape.allocate(numel, parts.front().dtype, "cat");
  tape.pointwise("cat", 2 * bytes_of(y));
  if (!tracked) return y;
  tape.track(y, "cat", std::move(edges), {}, [numels](Tape&, const std::vector<Tensor>& gradients) {
    std::vector<Tensor> views;
    for (const std::int64_t own : numels) {
      views.push_back(view(gradients[0], true));
      views.back().numel = own;
    }
    return views;
  });
  return y;
}

// GraniteMoeParallelExperts.forward: inputs.split(sizes), F.linear with weight[i] of each, cat. The
// gradient of weight[i] is a whole weight of zeros with that part filled in.
Tensor parallel_linear(Tape& tape, const OperatorCall& call, const Tensor& rows, std::size_t weight,
                       std::int64_t inputs, std::int64_t outputs) {
  const std::int64_t experts = call.op->mixture.experts;
  const std::int64_t count = rows.numel / inputs;
  std::vector<std::int64_t> numels;
  for (std::int64_t e = 0; e < experts; ++e) {
    numels.push_back((count / experts + (e < count % experts ? 1 : 0)) * inputs);
  }
  std::vector<Tensor> results;
  for (Tensor& own : split(tape, rows, numels)) {
    own.dense = true;
    Tensor matrix = slice(tape, call.weights[weight], checked_multiply(inputs, outputs));
    matrix.leaf = kNoLeaf;
    matrix.dense = true;
    results.push_back(linear(tape, own, matrix, Tensor(), inputs, outputs));
  }
  return joined(tape, results);
}

// GraniteMoeMoE.forward: choices sorted by expert, each with its token's row.
Tensor parallel_experts(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  const std::int64_t choices = call.inputs[2].numel;
  tape.begin_operation(OperationKind::other, {&call.inputs[2]});
  const Tensor order = tape.allocate(choices, DType::int64, "sort");
  const Tensor tokens = tape.allocate(choices, DType::int64, "div");
  tape.pointwise("sort", 4 * bytes_of(order));
  const Tensor gates = index(tape, call.inputs[1], {order}, choices);
  const Tensor rows = index(tape, x, {tokens}, checked_multiply(choices, hidden));
  const std::int64_t wide = mixture.intermediate;
  const Tensor both = parallel_linear(tape, call, rows, 0, hidden, 2 * wide);
  const std::vector<Tensor> halves = split(tape, both, {choices * wide, choices * wide});
  Tensor h = mul(tape, activation(tape, call.op->activation, halves[0]), halves[1]);
  h = parallel_linear(tape, call, h, 1, wide, hidden);
  h = mul(tape, std::move(h), gates);
  tape.begin_operation(OperationKind::other);
  const Tensor zeros = tape.allocate(x.numel, x.dtype, "zeros");
  tape.pointwise("zeros", bytes_of(zeros));
  Tensor out = tape.allocate(x.numel, x.dtype, "index_add");  // not in place
  return index_add_in_place(tape, std::move(out), tokens, std::move(h));
}

}  // namespace

std::vector<Tensor> run_mixture_operator(Tape& tape, const OperatorCall& call) {
  switch (call.op->kind) {
    case OperatorKind::router: return router(tape, call);
    case OperatorKind::expert_assignment: return expert_assignment(tape, call);
    default:
      if (call.op->mixture.code == model::ExpertCode::parallel) {
        return {parallel_experts(tape, call)};
      }
      return {dispatches(call) ? dispatched_experts(tape, call) : experts(tape, call)};
  }
}

}  // namespace steelyard::step
