// Adds up the step: every pass x phase x body x repeat, with the communication that compute hides.
#pragma once

#include <cstdint>
#include <vector>

#include "base/quantity.h"
#include "facts/plan.h"
#include "pace/roofline.h"
#include "step/program.h"

namespace steelyard::pace {

// Times by the program's own indices. Entries that the step does not use are never read.
struct Prices {
  std::vector<WorkTime> work;
  std::vector<Seconds> communication;
  Seconds kernel_launch;          // host time per kernel
  Seconds kernel_launch_forward;  // in forward phases
  Ratio overlap_slowdown;
};

struct Walked {
  facts::PaceBreakdown breakdown;
  Flops recomputed;  // of one rank, by matrix products and attention
  std::int64_t kernels = 0;
  Seconds host_bound;  // of the breakdown: waiting for the host to launch kernels
};

// Rules (docs/model/): inside one iteration of a body, communication that may overlap runs beside
// the work and slows it; what it adds to the work alone is exposed. The rest is exposed whole. A
// phase never ends before the host has launched its kernels.
[[nodiscard]] Walked walk(const step::Program& program, const Prices& prices);

}  // namespace steelyard::pace
