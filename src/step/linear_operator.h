// A linear layer as a module: plain, over a quantized matrix, with a low-rank adapter.
#pragma once

#include "step/operators.h"

namespace steelyard::step {

struct LowRankPair {
  const Tensor& down;  // A [rank, inputs]
  const Tensor& up;    // B [outputs, rank]
  std::int64_t inputs = 0, outputs = 0;
};
// `result` of the base layer of `input`, and what the pair adds to it. The operator's own dropout
// and rank count.
[[nodiscard]] Tensor adapted(Tape& tape, const OperatorCall& call, const Tensor& input,
                             const LowRankPair& pair, Tensor result);
struct ExpertMatrix {
  std::size_t weight = 0;  // of the operator
  std::int64_t inputs = 0, outputs = 0;
};
// The same behind a matrix of an operator of experts, where that has an adapter: behind the
// matrices follow A and B of each.
[[nodiscard]] Tensor adapted_expert(Tape& tape, const OperatorCall& call, const Tensor& input,
                                    const ExpertMatrix& matrix, Tensor result);

[[nodiscard]] Tensor linear_layer(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
