// Accelerator utilization as MLPerf Storage defines it (mlcommons/storage, Submission_guidelines.md
// section 2): the time computed over the time that passed, without the first step.
#pragma once

#include <span>

#include "base/quantity.h"

namespace steelyard::rehearse {

struct Step {
  Seconds waited;    // for its batch
  Seconds computed;  // by the accelerator, real or paced
};

// The share of time in which one accelerator computed; the first `excluded` steps do not count. 0
// when no step is left.
[[nodiscard]] Ratio utilization(std::span<const Step> steps, std::size_t excluded = 1);

}  // namespace steelyard::rehearse
