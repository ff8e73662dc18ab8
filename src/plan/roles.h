// The models of a job beside its policy, as the program needs them.
#pragma once

#include "base/error.h"
#include "facts/job.h"
#include "plan/plan.h"
#include "step/alignment.h"

namespace steelyard::plan {

struct Roles {
  step::Alignment alignment;
  // Beyond the policy's own forward and backward pass: arithmetic of one sample in all models.
  Flops flops_per_sample;
};

// `job` is resolved, with an objective other than sft.
[[nodiscard]] Result<Roles> roles_of(const Request& request, const facts::Job& job);

}  // namespace steelyard::plan
