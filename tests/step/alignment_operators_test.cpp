// What log-probabilities of tokens allocate, against PyTorch 2.6: live bytes of every storage under
// a TorchDispatchMode, for logits [3,5,1000] of TRL's selective_log_softmax(logits[:, :-1], ids).
#include "step/alignment_operators.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "step/primitives.h"

namespace steelyard::step {
namespace {

struct Peaks {
  std::int64_t forward = 0, backward = 0;
};

std::int64_t peak_of(const Program& program, const std::vector<Event>& events,
                     std::int64_t& alive) {
  std::int64_t peak = alive;
  for (const Event& event : events) {
    if (event.kind == EventKind::work) continue;
    const std::int64_t bytes = program.slots[static_cast<std::size_t>(event.index)].bytes.value();
    if (event.kind == EventKind::allocate) alive += bytes;
    if (event.kind == EventKind::free) alive -= bytes;
    peak = std::max(peak, alive);
  }
  return peak;
}

Peaks peaks_of(DType dtype) {
  Program program;
  TapeOptions options;
  options.arithmetic.compute = dtype;
  Tape tape(program, options);
  std::vector<Event> forward, backward;
  tape.record_to(forward);
  Tensor base = tape.external(15'000, dtype);
  base.requires_grad = true;
  base.leaf = 0;
  model::Operator op;
  op.kind = model::OperatorKind::log_probabilities;
  const Variants variants;
  OperatorCall call;
  call.op = &op;
  call.variants = &variants;
  call.input_shapes = {{3, 5, 1000}};
  call.inputs = {mul_constant(tape, base)};
  std::vector<Tensor> result = run_alignment_operator(tape, call);
  call.inputs.clear();
  result.pop_back();
  Tensor loss = mean(tape, std::move(result.front()), 12);
  result.clear();
  tape.record_to(backward);
  tape.leaf_gradient = [](std::int32_t, const Tensor&) {};
  Tensor ones = tape.allocate(1, dtype, "ones_like");
  tape.run_backward(std::exchange(loss, Tensor()), std::move(ones));
  Peaks peaks;
  std::int64_t alive = 0;
  peaks.forward = peak_of(program, forward, alive);
  peaks.backward = peak_of(program, backward, alive);
  return peaks;
}

// Backward: the logits, the gradients of all rows and their stack: 60,000 + 2 x 48,000. Forward:
// the logits and the exponentials of one row, which the kernel holds unseen: 60,000 + 16,000.
TEST(TokenLogProbabilities, WideLogits) {
  const Peaks peaks = peaks_of(DType::fp32);
  EXPECT_NEAR(static_cast<double>(peaks.backward), 156'000.0, 500.0);
  EXPECT_NEAR(static_cast<double>(peaks.forward), 76'000.0, 500.0);
}

// Backward: two slices of [3,5,1000], one after the other: 60,000. Forward: the logits and the
// log_softmax of every row, 30,000 + 24,000.
TEST(TokenLogProbabilities, ShortLogits) {
  const Peaks peaks = peaks_of(DType::bf16);
  EXPECT_NEAR(static_cast<double>(peaks.backward), 60'000.0, 500.0);
  EXPECT_NEAR(static_cast<double>(peaks.forward), 54'000.0, 500.0);
}

}  // namespace
}  // namespace steelyard::step
