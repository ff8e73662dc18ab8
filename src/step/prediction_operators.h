// What joins the prediction of further tokens to the rest of a model (Megatron-LM
// core/transformer/multi_token_prediction.py): join, gather_features, attach_loss.
#pragma once

#include "step/operators.h"

namespace steelyard::step {

[[nodiscard]] Tensor run_prediction_operator(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
