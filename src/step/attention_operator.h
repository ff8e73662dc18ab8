// Attention with the kernel and the types that the job and the framework choose.
#pragma once

#include "step/operators.h"

namespace steelyard::step {

// q [B,nh,S,d], k and v [B,nkv,S,d] -> [B,S,nh*d]
[[nodiscard]] Tensor attention(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
