// The ratio of host memory to GPU memory on a steelyard: a beam with a scale, the rule of thumb as
// its thick part, what the job needs pointed at from above, what is installed from below.
#pragma once

#include <string>
#include <vector>

#include "facts/plan.h"
#include "report/paint.h"

namespace steelyard::report {

// Three or four lines of at most `width` columns; nothing known, nothing drawn but the rule.
[[nodiscard]] std::vector<std::string> steelyard_lines(const facts::BalancePlan& balance,
                                                       std::size_t width, const Paint& paint);

// "3.2", "3", "12": one decimal where it says something, none from 10.
[[nodiscard]] std::string ratio_text(Ratio ratio);

}  // namespace steelyard::report
