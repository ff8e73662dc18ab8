// The attention of Transformer-XL, as one operator.
#pragma once

#include "step/operators.h"
#include "step/tape.h"

namespace steelyard::step {

[[nodiscard]] Tensor recurrent_attention(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
