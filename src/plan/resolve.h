// Fills every default that depends on the model, the machine or other keys, and refuses impossible
// combinations. Each filled value gets its origin.
#pragma once

#include "base/error.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/model_source.h"

namespace steelyard::plan {

[[nodiscard]] Result<facts::Job> resolve(facts::Job job, const facts::ModelSource& model,
                                         const facts::Machine& machine);

}  // namespace steelyard::plan
