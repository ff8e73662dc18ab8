// What to change: candidates tried by really planning each of them.
#pragma once

#include <memory>
#include <vector>

#include "facts/plan.h"
#include "plan/figures.h"
#include "plan/plan.h"

namespace steelyard::plan {

// Ordered by gain over effort, what makes the job fit first (docs/model/balance.md). At most a
// handful. `prepared`: what `planned` was measured from.
[[nodiscard]] std::vector<facts::Advice> advice_for(
    const Request& request, const facts::Plan& planned,
    const std::shared_ptr<const Prepared>& prepared);

}  // namespace steelyard::plan
