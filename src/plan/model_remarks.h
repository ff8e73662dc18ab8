// What a person should know of how a model's own files were taken.
#pragma once

#include <string>
#include <vector>

#include "facts/constants.h"
#include "facts/job.h"
#include "facts/model_source.h"
#include "model/graph.h"

namespace steelyard::plan {

// One sentence each: weights stored quantized, a class without a head, targets that name nothing.
[[nodiscard]] std::vector<std::string> model_remarks(const facts::ModelSource& source,
                                                     const model::Graph& graph,
                                                     const facts::Job& job,
                                                     const facts::FrameworkProfile& profile);

}  // namespace steelyard::plan
