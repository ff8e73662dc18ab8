// Cross entropy of logits whose vocabulary is spread over tensor-parallel ranks, as DTensor runs it
// (torch/distributed/tensor/parallel/loss.py of PyTorch 2.6: _log_softmax, _nll_loss_forward,
// _nll_loss_and_log_softmax_backward): the statements of a few operators instead of two kernels.
#include <utility>

#include "step/primitives_fused.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

constexpr std::string_view kForward = "loss_parallel", kBackward = "loss_parallel_backward";

Tensor of_rows(Tape& tape, std::int64_t rows, std::string_view name) {
  Tensor made = tape.allocate(rows, DType::fp32, name);
  tape.communicate(Collective::all_reduce, name, bytes_of(made), tape.options().tensor, false);
  return made;
}

Tensor elementwise(Tape& tape, std::int64_t numel, std::string_view name) {
  Tensor made = tape.allocate(numel, DType::fp32, name);
  tape.pointwise(name, 2 * bytes_of(made));
  return made;
}

// grad_input = zeros_like(x), and -1 at the targets; (grad_input + exp(x)) * grad_output
Tensor backward_of(Tape& t, std::int64_t numel) {
  const Tensor zeros = elementwise(t, numel, kBackward);
  Tensor exponential = elementwise(t, numel, kBackward);
  const Tensor sum = elementwise(t, numel, kBackward);
  exponential = Tensor();
  return elementwise(t, numel, kBackward);
}

// The maximum, x - maximum, the sum of exp(x - maximum), and its logarithm taken off.
Tensor log_softmax(Tape& tape, const Tensor& x, std::int64_t rows) {
  const Tensor maximum = of_rows(tape, rows, kForward);
  const Tensor shifted = elementwise(tape, x.numel, kForward);
  Tensor exponential = elementwise(tape, x.numel, kForward);
  const Tensor sum = of_rows(tape, rows, kForward);
  exponential = Tensor();
  return elementwise(tape, x.numel, kForward);
}

}  // namespace

Tensor sharded_cross_entropy(Tape& tape, Tensor argument, std::int64_t rows) {
  const Tensor logits = std::move(argument);
  tape.begin_operation(OperationKind::other, {&logits});
  const DType before = logits.dtype;
  Tensor wide;
  if (before != DType::fp32) wide = elementwise(tape, logits.numel, kForward);
  Tensor likelihood = log_softmax(tape, logits, rows);
  wide = Tensor();
  Tensor loss = tape.allocate(1, DType::fp32, kForward);
  const Tensor picked = of_rows(tape, rows, kForward);
  if (!tape.tracks({&logits})) return loss;
  const std::int64_t numel = logits.numel;
  tape.track(loss, kForward, {Tape::edge_of(logits)}, {likelihood.storage},
             [numel, before](Tape& t, const Gradients&) {
               Tensor dx = backward_of(t, numel);
               if (before == DType::fp32) return Gradients{dx};
               Tensor cast = t.allocate(numel, before, "to");
               t.pointwise("to", bytes_of(dx) + bytes_of(cast));
               return Gradients{cast};
             });
  return loss;
}

}  // namespace steelyard::step
