// Operators of models that hear.
#pragma once

#include <vector>

#include "step/operators.h"

namespace steelyard::step {

[[nodiscard]] std::vector<Tensor> run_speech_operator(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
