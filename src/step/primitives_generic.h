// ATen's operators of any arity and shape, for graphs that come from files. See primitives.h for
// what a function here says; what is saved stands in derivatives.yaml under the name given.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/graph.h"
#include "step/tape.h"

namespace steelyard::step {

// A result as the graph knows it: how many elements, and whether they lie in the order of its
// shape.
struct Outcome {
  std::int64_t numel = 1;
  DType dtype = DType::fp32;
  bool dense = true;
  bool differentiable = true;
};

// One kernel each way; `saves` what its derivative reads. Fewer elements of the result: a
// reduction.
[[nodiscard]] Tensor unary(Tape& tape, Tensor x, model::Saves saves, const Outcome& outcome);
// a + b, a * b, a / b, a ** b, max(a, b), a < b; gradients of broadcast operands are summed.
[[nodiscard]] Tensor binary(Tape& tape, Tensor a, Tensor b, model::ArithmeticKind kind,
                            const Outcome& outcome);
// where(condition, a, b): saves the condition.
[[nodiscard]] Tensor select(Tape& tape, const Tensor& condition, Tensor a, Tensor b,
                            const Outcome& outcome);
// index_put, scatter: saves the indices; the result is a copy.
[[nodiscard]] Tensor scatter(Tape& tape, Tensor x, Tensor updates, const Tensor& indices);

// XIELUActivation._xielu_python (transformers): both branches of where() on all elements; the two
// weights are of one element each.
[[nodiscard]] Tensor xielu(Tape& tape, const Tensor& x, const Tensor& positive,
                           const Tensor& negative);

struct RecurrentDims {
  std::int64_t steps = 1, samples = 1, inputs = 1, hidden = 1, directions = 1, gates = 4;
};
// One layer of an LSTM, a GRU or a plain network: saves its input, its weights, its states, and
// what the gates of every step were; all states, the last ones behind them.
[[nodiscard]] std::vector<Tensor> recurrent(Tape& tape, const Tensor& x,
                                            const std::vector<Tensor>& weights,
                                            const RecurrentDims& dims);

}  // namespace steelyard::step
