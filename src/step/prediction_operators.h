// What joins the prediction of further tokens to the rest of a model (Megatron-LM
// core/transformer/multi_token_prediction.py): join, gather_features, attach_loss.
#pragma once

#include "step/operators.h"

namespace steelyard::step {

[[nodiscard]] Tensor run_prediction_operator(Tape& tape, const OperatorCall& call);

// The logits of the whole vocabulary, and their shape, where tensor-parallel ranks hold parts.
[[nodiscard]] Tensor gathered_logits(Tape& tape, const OperatorCall& call, model::Shape& shape);

}  // namespace steelyard::step
