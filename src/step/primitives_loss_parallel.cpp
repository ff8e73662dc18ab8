// Cross entropy of logits whose vocabulary is spread over tensor-parallel ranks, as DTensor runs it
// (torch/distributed/tensor/parallel/loss.py of PyTorch 2.6: _log_softmax, _nll_loss_forward,
// _nll_loss_and_log_softmax_backward): the statements of a few operators instead of two kernels.
#include <initializer_list>
#include <utility>

#include "step/primitives_fused.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

constexpr std::string_view kForward = "loss_parallel", kBackward = "loss_parallel_backward";

// The statements are traced into a compiled end's own graph, where what is pointwise is fused with
// what reads it; collectives and the write at the targets are not.
void begin_part(Tape& t, OperationKind kind, std::initializer_list<const Tensor*> reads) {
  if (t.options().compiled) t.begin_operation(kind, reads);
}

Tensor of_rows(Tape& tape, const Tensor& x, std::int64_t rows, std::string_view name) {
  begin_part(tape, OperationKind::reduction, {&x});
  Tensor made = tape.allocate(rows, DType::fp32, name);
  if (tape.options().compiled) tape.pointwise(name, bytes_of(x) + bytes_of(made));
  begin_part(tape, OperationKind::other, {&made});
  tape.communicate(Collective::all_reduce, name, bytes_of(made), tape.options().tensor, false);
  return made;
}

Tensor written(Tape& tape, std::int64_t numel, std::string_view name) {
  Tensor made = tape.allocate(numel, DType::fp32, name);
  tape.pointwise(name, 2 * bytes_of(made));
  return made;
}

Tensor elementwise(Tape& tape, std::initializer_list<const Tensor*> reads, std::int64_t numel,
                   std::string_view name) {
  begin_part(tape, OperationKind::pointwise, reads);
  return written(tape, numel, name);
}

// grad_input = zeros_like(x), and -1 at the targets; (grad_input + exp(x)) * grad_output
Tensor backward_of(Tape& t, const Tensor& likelihood, std::int64_t numel) {
  begin_part(t, OperationKind::other, {});
  const Tensor zeros = written(t, numel, kBackward);
  Tensor exponential = elementwise(t, {&likelihood}, numel, kBackward);
  const Tensor sum = elementwise(t, {&zeros, &exponential}, numel, kBackward);
  exponential = Tensor();
  return elementwise(t, {&sum}, numel, kBackward);
}

// The maximum, x - maximum, the sum of exp(x - maximum), and its logarithm taken off.
Tensor log_softmax(Tape& tape, const Tensor& x, std::int64_t rows) {
  const Tensor maximum = of_rows(tape, x, rows, kForward);
  const Tensor shifted = elementwise(tape, {&x, &maximum}, x.numel, kForward);
  Tensor exponential = elementwise(tape, {&shifted}, x.numel, kForward);
  const Tensor sum = of_rows(tape, exponential, rows, kForward);
  exponential = Tensor();
  return elementwise(tape, {&shifted, &sum}, x.numel, kForward);
}

}  // namespace

Tensor sharded_cross_entropy(Tape& tape, Tensor argument, std::int64_t rows) {
  const Tensor logits = std::move(argument);
  tape.begin_operation(OperationKind::other, {&logits});
  const DType before = logits.dtype;
  Tensor wide;
  if (before != DType::fp32) wide = elementwise(tape, {&logits}, logits.numel, kForward);
  Tensor likelihood = log_softmax(tape, wide ? wide : logits, rows);
  wide = Tensor();
  begin_part(tape, OperationKind::reduction, {&likelihood});
  Tensor loss = tape.allocate(1, DType::fp32, kForward);
  const Tensor picked = of_rows(tape, likelihood, rows, kForward);
  if (!tape.tracks({&logits})) return loss;
  const std::int64_t numel = logits.numel;
  begin_part(tape, OperationKind::pointwise, {&likelihood});
  const StorageRef read = tape.options().compiled ? likelihood.storage : nullptr;
  tape.track(loss, kForward, {Tape::edge_of(logits)}, {likelihood.storage},
             [numel, before, read](Tape& t, const Gradients&) {
               const Tensor taken = read ? Tape::alias(read, numel, DType::fp32) : Tensor();
               Tensor dx = backward_of(t, taken, numel);
               if (before == DType::fp32) return Gradients{dx};
               begin_part(t, OperationKind::pointwise, {&dx});
               Tensor cast = t.allocate(numel, before, "to");
               t.pointwise("to", bytes_of(dx) + bytes_of(cast));
               return Gradients{cast};
             });
  return loss;
}

}  // namespace steelyard::step
