// Whether the two memories are in balance: tier, rule of thumb, needed and installed ratio,
// verdicts.
#pragma once

#include "facts/plan.h"
#include "step/program.h"

namespace steelyard::plan {

// Reads vram, ram, pace and feed of the plan; `states` of its fullest rank's program.
[[nodiscard]] facts::BalancePlan balance_of(const facts::Plan& plan,
                                            const step::StateSizes& states);

}  // namespace steelyard::plan
