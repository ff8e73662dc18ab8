// Experts as the models' own codes run them, where that is no loop over modules (ExpertCode).
#pragma once

#include "step/operators.h"

namespace steelyard::step {

// ExpertCode::sorted, selected, chunked, dense.
[[nodiscard]] Tensor own_experts(Tape& tape, const OperatorCall& call);

// zeros.scatter_(1, indices, values): the values of the chosen at their places among `numel`.
[[nodiscard]] Tensor spread(Tape& tape, Tensor values, const Tensor& indices, std::int64_t numel);

// Rows cut off a tensor of all experts' rows; `rows` of them go to each, evenly.
[[nodiscard]] std::vector<std::int64_t> even_parts(std::int64_t rows, std::int64_t experts,
                                                   std::int64_t width);

// torch.cat of tensors of rows: gradients are views of its own.
[[nodiscard]] Tensor joined_rows(Tape& tape, const std::vector<Tensor>& parts);

}  // namespace steelyard::step
