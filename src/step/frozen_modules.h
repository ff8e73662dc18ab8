// Modules whose parameters have requires_grad = False: train.frozen.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "model/graph.h"

namespace steelyard::step {

// The graph with the weights of these modules frozen. A module is named by its path, or by an end
// of it: "wav2vec2.feature_extractor", "feature_extractor".
// Errors: a module that the model does not have, naming those that it has.
[[nodiscard]] Result<model::Graph> with_frozen_modules(const model::Graph& graph,
                                                       const std::vector<std::string>& modules);

}  // namespace steelyard::step
