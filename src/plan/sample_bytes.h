// Bytes of one sample on its way to the card.
#pragma once

#include <optional>

#include "base/quantity.h"
#include "model/graph.h"
#include "plan/plan.h"

namespace steelyard::plan {

// In host memory, as the loader hands it over.
[[nodiscard]] Bytes sample_bytes(const Request& request, const model::Graph& graph,
                                 const facts::Job& job);

// What of it goes to the card, where a companion on the host makes something else of it.
[[nodiscard]] std::optional<Bytes> copied_bytes(const Request& request, const model::Graph& graph,
                                                const facts::Job& job);

}  // namespace steelyard::plan
