// What preference and reinforcement learning compute behind a model, as their trainers write it.
#pragma once

#include <vector>

#include "step/operators.h"

namespace steelyard::step {

// cached, log_probabilities, alignment_loss. Behind the log-probabilities come the logits that they
// are of.
[[nodiscard]] std::vector<Tensor> run_alignment_operator(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
