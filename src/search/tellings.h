// Why a layout is not the best one, in words.
#pragma once

#include <string>

#include "facts/plan.h"
#include "search/search.h"

namespace steelyard::search {

// How many times what there is the plan needs, of what it has least of: more than 1 does not fit.
[[nodiscard]] double lack_of(const facts::Plan& plan);

// "does not fit: each GPU needs 90 GiB of 80 GiB", of all that is short. The plan is whole.
[[nodiscard]] std::string why_not(const facts::Plan& plan, const Within& within);

// "fits, 3 % slower: 0.2 s more of compute", or as fast. Both have a step.
[[nodiscard]] std::string how_slow(const facts::Plan& winner, const facts::Plan& plan);

// Something fits on the place, nothing within what is asked for: what would have to give way.
// `fastest`, `leanest`: of all that fits.
[[nodiscard]] std::string why_outside(const facts::Plan& fastest, const facts::Plan& leanest,
                                      const Within& within);

// Why a place is left out before anything is planned; empty: it is not.
[[nodiscard]] std::string why_excluded(const Place& place, std::int64_t gpus, const Within& within);

}  // namespace steelyard::search
