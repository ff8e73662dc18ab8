// One job planned once: every figure of the plan but the advice, which needs further plans.
#pragma once

#include "base/error.h"
#include "facts/plan.h"
#include "plan/plan.h"

namespace steelyard::plan {

// `alike`: a plan of the same program on the same GPUs, whose VRAM is then this one's too.
[[nodiscard]] Result<facts::Plan> figures(const Request& request,
                                          const facts::Plan* alike = nullptr);

}  // namespace steelyard::plan
