// Models that share the card with the trained one: model.companions.
#pragma once

#include <vector>

#include "base/error.h"
#include "facts/job.h"
#include "model/graph.h"
#include "step/step.h"

namespace steelyard::step {

// What its weights are held in, and its products computed.
[[nodiscard]] facts::DType type_of(const Companion& companion, facts::DType products);

// Errors: a companion that trains and is held on the CPU.
[[nodiscard]] Result<void> check_companions(const std::vector<Companion>& companions);

// The graph with the weights of the companions that train, in its first block: they are held,
// graded and stepped as the model's own. What their forward pass keeps is not counted (a text
// encoder's few tokens). Beside low-rank adapters a companion trains as the model does: by adapters
// of the targets that it has, or of its family's usual ones (diffusers' train_text_encoder).
// Errors: a companion with none of them.
[[nodiscard]] Result<model::Graph> with_companions(model::Graph graph, const facts::Job& job,
                                                   const std::vector<Companion>& companions);

}  // namespace steelyard::step
