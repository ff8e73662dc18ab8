// The least workers, batches ahead and read requests with which accelerators are used enough, found
// by trying.
#pragma once

#include <functional>

#include "rehearse/rehearse.h"

namespace steelyard::rehearse {

using Trial = std::function<Result<facts::Rehearsal>(const Settings&)>;

struct Tuned {
  Settings settings;           // the least that is enough, or the most that was tried
  facts::Rehearsal rehearsal;  // with them; its `tuning` holds all tries
};

// Halves the range of workers (1 to `most_workers`), then of batches ahead, then of requests under
// way, each from what `start` has down to 1. Assumes that more is not worse; each answer is a real
// rehearsal. Errors: those of a trial; missing_value without a step time.
[[nodiscard]] Result<Tuned> tune(const Settings& start, std::int64_t most_workers, Ratio target,
                                 const Trial& trial);

}  // namespace steelyard::rehearse
