// What src/pace is asked with, but for the program: the machine, the constants, and what the
// framework's profile ([operators]) says of how kernels and the host run.
#pragma once

#include "facts/job.h"
#include "facts/machine.h"
#include "pace/pace.h"
#include "plan/plan.h"

namespace steelyard::plan {

// `job`: resolved; it, the machine and the request must outlive what is returned.
[[nodiscard]] pace::Request pace_request(const Request& request, const facts::Job& job,
                                         const facts::Machine& machine);

}  // namespace steelyard::plan
