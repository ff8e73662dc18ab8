// The operators of graphs that come from files, carried out as eager PyTorch would. Called by
// run_image_operator.
#pragma once

#include <vector>

#include "step/operators.h"

namespace steelyard::step {

[[nodiscard]] std::vector<Tensor> run_generic_operator(Tape& tape, const OperatorCall& call);
// Cross entropy of the first output where labels are given, else its sum; plus the sums of the
// others.
[[nodiscard]] Tensor outputs_loss(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
