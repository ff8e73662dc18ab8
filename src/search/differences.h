// What must be set in a job to make it one of a search.
#pragma once

#include <cstdint>

#include "facts/job.h"
#include "facts/what_if.h"

namespace steelyard::search {

// The keys, besides those that the layout itself sets, in which `layout`, a job of a `Space` made
// from `job` on some place, is planned otherwise: the place, the batch of a step, what follows from
// it where the job gives it, the schedule. `gpus`: of the whole place.
[[nodiscard]] facts::KeySettings differences(const facts::Job& job, const facts::Job& layout,
                                             std::int64_t gpus);

// `then` behind `set`, its values in the place of the old ones of the same keys.
[[nodiscard]] facts::KeySettings overlaid(facts::KeySettings set, const facts::KeySettings& then);

}  // namespace steelyard::search
