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
  Tensor probabilities = softmax(tape, std::move(logits), DType::fp32);
  TopK best = topk(tape, std::move(probabilities), mixture.experts, mixture.chosen);
  // routing_weights /= routing_weights.sum(dim=-1, keepdim=True). A division saves both operands,
  // as a product does.
  const Tensor sum = sum_last(tape, best.values, mixture.chosen);
  Tensor weights = mul(tape, std::exchange(best.values, Tensor()), sum);
  return {to(tape, std::move(weights), x.dtype), best.indices};
}

bool dispatches(const OperatorCall& call) {
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

}  // namespace

std::vector<Tensor> run_mixture_operator(Tape& tape, const OperatorCall& call) {
  switch (call.op->kind) {
    case OperatorKind::router: return router(tape, call);
    case OperatorKind::expert_assignment: return expert_assignment(tape, call);
    default: return {dispatches(call) ? dispatched_experts(tape, call) : experts(tape, call)};
  }
}

}  // namespace steelyard::step
