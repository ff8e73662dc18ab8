#include "step/loss_operator.h"

#include <utility>

#include "step/primitives.h"

namespace steelyard::step {

namespace {

// transformers up to 4.44 (LlamaForCausalLM.forward): logits = logits.float();
// shift_logits = logits[..., :-1, :].contiguous(); shift_labels = labels[..., 1:].contiguous().
// A single row is contiguous without a copy.
std::vector<Tensor> shifted_logits_loss(Tape& tape, OperatorCall& call) {
  const std::int64_t samples = call.graph->batch;
  const std::int64_t tokens = call.graph->sequence - 1;
  const std::int64_t rows = checked_multiply(samples, tokens);
  Tensor logits = std::exchange(call.inputs[0], Tensor());
  logits = to(tape, std::move(logits), DType::fp32);
  Tensor shifted = slice(tape, logits, logits.numel / call.graph->sequence * tokens);
  shifted.dense = samples == 1;
  shifted = contiguous(tape, std::move(shifted));
  const bool view_of_labels = samples == 1 && call.labels;
  const Tensor labels =
      view_of_labels ? call.labels : tape.allocate(rows, DType::int64, "shift_labels");
  return {cross_entropy(tape, shifted, labels, rows), logits};
}

}  // namespace

std::vector<Tensor> causal_lm_loss(Tape& tape, OperatorCall& call) {
  const LossTypes types = call.variants->loss;
  if (types == LossTypes::upcast_shift) return shifted_logits_loss(tape, call);
  // ForCausalLMLoss: labels shifted by one with padding, logits widened, cross entropy of all rows.
  const std::int64_t rows = checked_multiply(call.graph->batch, call.graph->sequence);
  Tensor logits = call.inputs[0];
  if (types == LossTypes::upcast) logits = to(tape, std::move(logits), DType::fp32);
  const Tensor labels = tape.allocate(rows, DType::int64, "shift_labels");
  if (types == LossTypes::fused || types == LossTypes::in_place) {
    const bool in_place = types == LossTypes::in_place;
    return {fused_cross_entropy(tape, std::move(logits), labels, rows, in_place), call.inputs[0]};
  }
  return {cross_entropy(tape, std::move(logits), labels, rows), call.inputs[0]};
}

}  // namespace steelyard::step
