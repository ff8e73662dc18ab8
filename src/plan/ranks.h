// What is planned rank by rank: the resolved job, the programs of its ranks, their card.
#pragma once

#include <vector>

#include "facts/constants.h"
#include "plan/plan.h"
#include "step/step.h"

namespace steelyard::plan {

struct Ranks {
  facts::Job job;  // resolved
  std::vector<step::RankProgram> programs;
  // Of one sample, in models beside the policy and in passes of it that do not train.
  Flops flops_beside{};
};

// Errors: what `resolve`, `model::build` and `step::programs_of` refuse.
[[nodiscard]] Result<Ranks> ranks_of(const Request& request);

[[nodiscard]] std::vector<const step::Program*> programs_only(
    const std::vector<step::RankProgram>& programs);

// Of the machine's card, with the workspaces that the job's products have.
[[nodiscard]] facts::DeviceMemoryConstants device_of(const Request& request,
                                                     const facts::Job& resolved);

}  // namespace steelyard::plan
