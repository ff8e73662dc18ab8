// Matrix products of the host's processors: companions on the CPU need them, and the plan says how
// the rate is known.
#pragma once

#include "facts/machine.h"
#include "pace/pace.h"
#include "plan/plan.h"

namespace steelyard::plan {

// What the job or the machine file says, else its cores at the rate that a core is taken to have
// (catalog/calibration/host.toml). 16-bit products that nobody measured are as fast as those in
// fp32. Nothing where not even the cores are known.
[[nodiscard]] pace::HostProducts host_products(const Request& request,
                                               const facts::Machine& machine);

// Adds to the pace's assumptions what a step of this program computes on the host's processors, and
// warns of a rate that is assumed.
void tell_host_products(const Request& request, const step::Program& program, facts::Plan& plan);

}  // namespace steelyard::plan
