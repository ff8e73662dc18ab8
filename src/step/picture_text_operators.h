// Operators of models that read pictures beside text.
#pragma once

#include <vector>

#include "step/operators.h"

namespace steelyard::step {

[[nodiscard]] std::vector<Tensor> run_picture_text_operator(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
