// Whether the two memories are in balance: tier, rule of thumb, needed and installed ratio,
// verdicts.
#pragma once

#include "facts/plan.h"

namespace steelyard::plan {

// Reads vram, ram, pace and feed of the plan.
[[nodiscard]] facts::BalancePlan balance_of(const facts::Plan& plan);

}  // namespace steelyard::plan
