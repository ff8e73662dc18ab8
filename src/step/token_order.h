// Tokens that ranks gather or scatter where they are not a tensor's first dimension.
#pragma once

#include "step/operators.h"
#include "step/tape.h"

namespace steelyard::step {

// model::OperatorKind::gather_sequence and scatter_sequence: the collective, and the copies that
// put tokens in the order of the ranks and back (profile word gathered_input = "whole": DTensor).
[[nodiscard]] Tensor gathered_tokens(Tape& tape, const OperatorCall& call);
[[nodiscard]] Tensor scattered_tokens(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
