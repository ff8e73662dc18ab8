// Attention with embedded distances (DeBERTa-v2) in the model's own code.
#pragma once

#include "step/operators.h"

namespace steelyard::step {

// OperatorKind::disentangled_attention: DisentangledSelfAttention.forward from the heads on.
[[nodiscard]] Tensor disentangled_attention(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
