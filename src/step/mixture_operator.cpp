// MixtralSparseMoeBlock (transformers 4: modeling_mixtral.py): a loop over the experts, each of
// which gathers its tokens and adds its results back.
#include <utility>

#include "step/dispatched_experts.h"
#include "step/linear_operator.h"
#include "step/operators_image.h"
#include "step/own_experts.h"
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
  return quantized_linear(tape, x, Tensor(), inputs, outputs, call.quantization, call.captured);
}

bool dispatches(const OperatorCall& call) {
  if (call.op->mixture.code == model::ExpertCode::parallel) {
    return call.variants->experts == Experts::dispatched;
  }
  return call.variants->experts == Experts::dispatched || call.op->mixture.ranks > 1 ||
         call.op->mixture.feature_ranks > 1;
}

Tensor router_logits(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  if (!mixture.wide_router && !mixture.router_bias) {
    Tensor logits = part(tape, call, x, 0, hidden, mixture.experts);
    if (call.op->adapter_rank == 0) return logits;
    return adapted(tape, call, x, {call.weights[2], call.weights[3], hidden, mixture.experts},
                   std::move(logits));
  }
  const Tensor bias = mixture.router_bias ? call.weights[1] : Tensor();
  if (!mixture.wide_router) return linear(tape, x, call.weights[0], bias, hidden, mixture.experts);
  // F.linear(hidden_states.type(torch.float32), self.weight.type(torch.float32))
  const Tensor wide = to(tape, x, DType::fp32);
  const Tensor weight = to(tape, call.weights[0], DType::fp32);
  return linear(tape, wide, weight, bias, hidden, mixture.experts);
}

// DeepseekV3TopkRouter.forward: the choice is made by corrected scores outside of autograd, in
// groups of experts; the weights are gathered from the scores themselves.
std::vector<Tensor> sigmoid_router(Tape& tape, const model::MixtureShape& mixture, Tensor logits) {
  const Tensor scores = sigmoid(tape, std::move(logits));
  const std::int64_t tokens = scores.numel / mixture.experts;
  Tensor indices;
  {
    const Tensor corrected = tape.allocate(scores.numel, scores.dtype, "add");
    const Tensor allowed = tape.allocate(scores.numel, scores.dtype, "clone");
    const Tensor masked = tape.allocate(scores.numel, scores.dtype, "masked_fill");
    indices = tape.allocate(tokens * mixture.chosen, DType::int64, "topk");
    tape.pointwise("topk", 6 * bytes_of(scores));
  }
  Tensor best = gather(tape, scores, indices, indices.numel);
  if (mixture.routing == model::Routing::sigmoid_normalised) {
    const Tensor sum = add_constant(tape, sum_last(tape, best, mixture.chosen));
    best = mul(tape, std::exchange(best, Tensor()), sum);
  }
  return {mul_constant(tape, std::move(best)), std::move(indices)};
}

// GraniteMoeTopKGating: the chosen logits in fp32, then their softmax; GptOssTopKRouter: in their
// own type, spread over all experts; Llama4Router: spread, then the sigmoid of all.
std::vector<Tensor> router_of_chosen(Tape& tape, const OperatorCall& call, Tensor logits) {
  const model::MixtureShape& mixture = call.op->mixture;
  const DType before = call.inputs[0].dtype;
  const DType own = logits.dtype;
  const std::int64_t numel = logits.numel;
  const bool spreads = !dispatches(call) && (mixture.code == model::ExpertCode::selected ||
                                             mixture.code == model::ExpertCode::dense);
  if (mixture.routing == model::Routing::sigmoid_of_chosen) {
    TopK best = topk(tape, std::move(logits), mixture.experts, mixture.chosen);
    Tensor gates = std::move(best.values);
    if (spreads) gates = spread(tape, std::move(gates), best.indices, numel);
    gates = sigmoid(tape, to(tape, std::move(gates), DType::fp32));
    return {to(tape, std::move(gates), own), best.indices};
  }
  const bool widens = mixture.code != model::ExpertCode::selected;
  if (widens) logits = to(tape, std::move(logits), DType::fp32);
  TopK best = topk(tape, std::move(logits), mixture.experts, mixture.chosen);
  const bool wide = widens || tape.arithmetic().autocast;
  Tensor gates = softmax(tape, std::move(best.values), wide ? DType::fp32 : own);
  if (spreads)
    return {spread(tape, to(tape, std::move(gates), own), best.indices, numel), best.indices};
  return {to(tape, std::move(gates), before), best.indices};
}

// Ernie4_5_MoeSparseMoeBlock.forward: the choice by corrected probabilities, the weights gathered
// from the probabilities themselves and divided by their clamped sum.
std::vector<Tensor> corrected_router(Tape& tape, const model::MixtureShape& mixture,
                                     Tensor probabilities, DType before) {
  Tensor indices;
  {
    const Tensor corrected = tape.allocate(probabilities.numel, DType::fp32, "add");
    const std::int64_t tokens = probabilities.numel / mixture.experts;
    indices = tape.allocate(tokens * mixture.chosen, DType::int64, "topk");
    tape.pointwise("topk", 4 * bytes_of(corrected));
  }
  Tensor best = gather(tape, std::move(probabilities), indices, indices.numel);
  const Tensor sum = saving_input(tape, "clamp", sum_last(tape, best, mixture.chosen));
  best = mul(tape, std::exchange(best, Tensor()), sum);
  return {to(tape, std::move(best), before), std::move(indices)};
}

std::vector<Tensor> router(Tape& tape, const OperatorCall& call) {
  using model::Routing;
  const model::MixtureShape& mixture = call.op->mixture;
  const DType before = call.inputs[0].dtype;
  Tensor logits = router_logits(tape, call);
  if (mixture.routing == Routing::sigmoid || mixture.routing == Routing::sigmoid_normalised) {
    return sigmoid_router(tape, mixture, std::move(logits));
  }
  if (mixture.routing == Routing::softmax_of_chosen ||
      mixture.routing == Routing::sigmoid_of_chosen) {
    return router_of_chosen(tape, call, std::move(logits));
  }
  Tensor probabilities = softmax(tape, std::move(logits), DType::fp32);
  if (mixture.routing == Routing::softmax_corrected) {
    return corrected_router(tape, mixture, std::move(probabilities), before);
  }
  if (mixture.groups > 1) {  // masked_fill of what lies outside of the chosen groups
    const Tensor mask = tape.allocate(probabilities.numel, DType::boolean, "bitwise_not");
    probabilities = where(tape, mask, std::move(probabilities));
  }
  TopK best = topk(tape, std::move(probabilities), mixture.experts, mixture.chosen);
  if (mixture.routing == Routing::softmax) {  // norm_topk_prob = false
    if (mixture.wide_router) return {mul_constant(tape, std::move(best.values)), best.indices};
    return {to(tape, std::move(best.values), before), best.indices};
  }
  // routing_weights /= routing_weights.sum(dim=-1, keepdim=True). A division saves both operands,
  // as a product does.
  const Tensor sum = sum_last(tape, best.values, mixture.chosen);
  Tensor weights = mul(tape, std::exchange(best.values, Tensor()), sum);
  return {to(tape, std::move(weights), before), best.indices};
}

// one_hot, then torch.where for each expert.
std::vector<Tensor> expert_assignment(Tape& tape, const OperatorCall& call) {
  if (dispatches(call)) return std::vector<Tensor>(call.output_shapes.size());
  const std::int64_t choices = call.inputs[0].numel;
  tape.begin_operation(OperationKind::other, {&call.inputs[0]});
  const Tensor mask =
      tape.allocate(checked_multiply(choices, call.op->mixture.experts), DType::int64, "one_hot");
  tape.pointwise("one_hot", bytes_of(mask));
  std::vector<Tensor> assigned;  // of each expert two columns of one result
  for (std::size_t i = 0; i + 1 < call.output_shapes.size(); i += 2) {
    const std::int64_t count = model::elements(call.output_shapes[i]);
    const Tensor both = tape.allocate(2 * count, DType::int64, "nonzero");
    assigned.push_back(Tape::alias(both.storage, count, DType::int64));
    assigned.push_back(assigned.back());
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
  // Weights that stay in fp32 (DeepSeek-V3) make the sum and what is added to it fp32.
  const DType sums = mixture.wide_router ? routing.dtype : x.dtype;
  tape.begin_operation(OperationKind::other);
  Tensor out = tape.allocate(x.numel, sums, "zeros");
  tape.pointwise("zeros", bytes_of(out));
  for (std::int64_t e = 0; e < mixture.experts; ++e) {
    const auto at = static_cast<std::size_t>(e);
    const Tensor& slots = call.inputs[2 + 2 * at];
    const Tensor& tokens = call.inputs[3 + 2 * at];
    const std::size_t w1 = 3 * at;  // then w2, w3
    const Tensor own = index(tape, x, {tokens}, checked_multiply(tokens.numel, hidden));
    const auto matrix = [&](const Tensor& in, std::size_t weight, std::int64_t inputs,
                            std::int64_t outputs) {
      return adapted_expert(tape, call, in, {weight, inputs, outputs},
                            part(tape, call, in, weight, inputs, outputs));
    };
    Tensor gate = activation(tape, call.op->activation, matrix(own, w1, hidden, wide));
    Tensor up = matrix(own, w1 + 2, hidden, wide);
    Tensor h = mul(tape, std::move(gate), std::move(up));
    h = matrix(h, w1 + 1, wide, hidden);
    h = mul(tape, std::move(h), index(tape, routing, {tokens, slots}, tokens.numel));
    out = index_add_in_place(tape, std::move(out), tokens, to(tape, std::move(h), sums));
  }
  return to(tape, std::move(out), x.dtype);
}

// GraniteMoeParallelExperts.forward: inputs.split(sizes), F.linear with weight[i] of each, cat. The
// gradient of weight[i] is a whole weight of zeros with that part filled in.
Tensor parallel_linear(Tape& tape, const OperatorCall& call, const Tensor& rows, std::size_t weight,
                       std::int64_t inputs, std::int64_t outputs) {
  const std::int64_t experts = call.op->mixture.experts;
  const std::int64_t count = rows.numel / inputs;
  const std::vector<std::int64_t> numels = even_parts(count, experts, inputs);
  std::vector<Tensor> results;
  for (Tensor& own : split(tape, rows, numels)) {
    own.dense = true;
    Tensor matrix = slice(tape, call.weights[weight], checked_multiply(inputs, outputs));
    matrix.leaf = kNoLeaf;
    matrix.dense = true;
    results.push_back(linear(tape, own, matrix, Tensor(), inputs, outputs));
  }
  return joined_rows(tape, results);
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
      if (dispatches(call)) return {dispatched_experts(tape, call)};
      if (call.op->mixture.code == model::ExpertCode::parallel) {
        return {parallel_experts(tape, call)};
      }
      return {call.op->mixture.code == model::ExpertCode::loop ? experts(tape, call)
                                                               : own_experts(tape, call)};
  }
}

}  // namespace steelyard::step
