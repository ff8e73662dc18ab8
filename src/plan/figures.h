// One job planned once: every figure of the plan but the advice, which needs further plans.
#pragma once

#include "base/error.h"
#include "facts/plan.h"
#include "plan/plan.h"

namespace steelyard::plan {

[[nodiscard]] Result<facts::Plan> figures(const Request& request);

}  // namespace steelyard::plan
