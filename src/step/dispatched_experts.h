// Experts whose tokens travel: sorted, sent to the ranks of the experts, multiplied, sent back.
#pragma once

#include "step/operators.h"

namespace steelyard::step {

// call: as OperatorKind::experts, but slots and tokens of each expert are not read. The weights are
// those of this rank's experts: three each (w1, w2, w3) or two (fc1, perhaps gate and up in one;
// fc2).
[[nodiscard]] Tensor dispatched_experts(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
