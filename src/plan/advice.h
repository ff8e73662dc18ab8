// What to change: candidates tried by really planning each of them.
#pragma once

#include <vector>

#include "facts/plan.h"
#include "plan/plan.h"

namespace steelyard::plan {

// Ordered: what makes the job fit first, then what makes it faster. At most a handful.
[[nodiscard]] std::vector<facts::Advice> advice_for(const Request& request,
                                                    const facts::Plan& planned);

}  // namespace steelyard::plan
