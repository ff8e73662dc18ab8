// Micro-batches as long as their own longest sample: what comes before the longest of all.
#pragma once

#include "model/model.h"
#include "plan/ranks.h"

namespace steelyard::plan {

// What the allocator goes through before the longest samples come: the same programs of shorter
// ones, where the job says how long samples are on average. Changes the programs' shorter_steps.
void add_shorter_steps(const Request& request, const model::SampleShape& longest, Ranks& ranks);

}  // namespace steelyard::plan
