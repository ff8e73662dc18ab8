// The composite operators of encoders, pictures and mixtures of experts, written as the statements
// of their eager PyTorch code. Called by run_operator.
#pragma once

#include <vector>

#include "step/operators.h"

namespace steelyard::step {

// Operators of pictures and encoders.
[[nodiscard]] std::vector<Tensor> run_image_operator(Tape& tape, const OperatorCall& call);
// router, expert_assignment, experts.
[[nodiscard]] std::vector<Tensor> run_mixture_operator(Tape& tape, const OperatorCall& call);
// classification_loss, masked_lm_loss, span_loss, squared_loss.
[[nodiscard]] Tensor run_loss(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
