// Fills every default that depends on the model, the machine or other keys, and refuses impossible
// combinations. Each filled value gets its origin.
#pragma once

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/model_source.h"
#include "model/model.h"

namespace steelyard::step {
class Workshop;
}

namespace steelyard::plan {

// What the job says of its samples; `batch` of them.
[[nodiscard]] model::SampleShape sample_shape(const facts::Job& job, std::int64_t batch);

// `framework` says which of AdamW's kernels its recipes choose (operators.optimizer: fused);
// `workshop` keeps what other jobs resolve by too.
[[nodiscard]] Result<facts::Job> resolve(facts::Job job, const facts::ModelSource& model,
                                         const facts::Machine& machine,
                                         const facts::FrameworkProfile& framework = {},
                                         step::Workshop* workshop = nullptr);

}  // namespace steelyard::plan
