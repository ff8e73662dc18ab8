// The step told piece by piece: the same prices and rules as pace.h, so that rows and spans sum to
// its step (a test holds it over random jobs).
#pragma once

#include "base/error.h"
#include "facts/pace_why.h"
#include "pace/pace.h"

namespace steelyard::pace {

// Without data stalls, job name and plan, which the composing room adds. Nothing is in it when the
// machine lacks a figure that the step needs.
[[nodiscard]] Result<facts::PaceWhy> explain(const Request& request);

}  // namespace steelyard::pace
