// Graphs of models that several plans ask for, built once where the plans share a workshop.
#pragma once

#include <memory>

#include "base/error.h"
#include "facts/job.h"
#include "facts/model_source.h"
#include "model/model.h"

namespace steelyard::step {
class Workshop;
}

namespace steelyard::plan {

using GraphRef = std::shared_ptr<const model::Graph>;

// As model::build; known by source and sample. Null workshop: built anew.
[[nodiscard]] Result<GraphRef> built_graph(const facts::ModelSource& source,
                                           const model::SampleShape& sample,
                                           step::Workshop* workshop);

// As trained_graph (objective.h).
[[nodiscard]] Result<GraphRef> shared_graph(const facts::ModelSource& source, const facts::Job& job,
                                            const model::SampleShape& sample,
                                            step::Workshop* workshop);

}  // namespace steelyard::plan
