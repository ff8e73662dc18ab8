// A linear layer as a module: plain, over a quantized matrix, with a low-rank adapter.
#pragma once

#include "step/operators.h"

namespace steelyard::step {

[[nodiscard]] Tensor linear_layer(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
