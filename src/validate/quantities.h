// One measured case beside its plan: which figure of the plan answers each measured one.
#pragma once

#include <optional>
#include <vector>

#include "facts/cases.h"
#include "facts/plan.h"

namespace steelyard::validate {

struct CaseComparison {
  std::vector<facts::Comparison> comparisons;
  std::vector<facts::UnsupportedCase> unsupported;  // quantities that the plan does not answer
};

// Compares every measured quantity of the group `only`, or of all groups. Each measured quantity
// ends in one of the two lists.
[[nodiscard]] CaseComparison compare_quantities(const facts::Case& measured_case,
                                                const facts::Plan& plan,
                                                std::optional<facts::QuantityGroup> only);

// Whether the case measures anything of that group; verdicts (fits) are not quantities.
[[nodiscard]] bool measures(const facts::Measured& measured, facts::QuantityGroup group);

}  // namespace steelyard::validate
