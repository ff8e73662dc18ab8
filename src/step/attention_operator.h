// Attention with the kernel and the types that the job and the framework choose.
#pragma once

#include "step/operators.h"

namespace steelyard::step {

// q [B,nh,S,d], k and v [B,nkv,S,d] -> [B,S,nh*d]
[[nodiscard]] Tensor attention(Tape& tape, const OperatorCall& call);

// The same under a checkpoint of its own (Megatron's selective recomputation,
// tensor_parallel/random.py, CheckpointFunction): only the inputs are kept.
[[nodiscard]] Tensor recomputed_attention(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
