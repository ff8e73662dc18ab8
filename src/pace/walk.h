// Adds up the step: every pass x phase x body x repeat, with the communication that compute hides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/quantity.h"
#include "facts/enums.h"
#include "facts/plan.h"
#include "pace/roofline.h"
#include "step/program.h"

namespace steelyard::step {
class Workshop;
}

namespace steelyard::pace {

// Times by the program's own indices. Entries that the step does not use are never read.
struct Prices {
  std::vector<WorkTime> work;
  std::vector<Seconds> communication;
  std::vector<Seconds> stolen;        // of the work beside each communication
  std::vector<bool> beside_shared{};  // exchanges beside the work of shared experts
  Seconds kernel_launch;              // host time per kernel
  Seconds kernel_launch_forward;      // in forward phases, and of what is recomputed
  Seconds collective_call{};          // host time per collective
  // What the optimizer's phase gathers is gathered beside the next step's first forward pass.
  bool gathers_beside_forward = false;
  // Of a pipeline: the order of passes, the passes of each stage over those of this rank (empty:
  // all alike), micro-batches that go through the chunks together.
  facts::Schedule schedule = facts::Schedule::one_f_one_b;
  std::vector<double> stage_shares;
  std::int64_t micro_batch_group = 0;
  step::Workshop* workshop = nullptr;  // of the program's plan
};

struct Walked {
  facts::PaceBreakdown breakdown;
  Flops recomputed;  // of one rank, by matrix products and attention
  double kernels = 0.0;
  Seconds host_bound;  // of the breakdown: waiting for the host to launch kernels
};

// Clipping, the optimizer's own phase and setting gradients to zero.
[[nodiscard]] bool belongs_to_optimizer(step::PhaseKind kind);

// At the border of a pipeline stage, in a body without work: what may overlap runs beside the work
// of its phase.
[[nodiscard]] bool crosses_border(const step::Body& body, const step::Communication& communication);

// The share of all that crosses borders in a phase that its work does not hide.
[[nodiscard]] double exposed_at_borders(const step::Phase& phase, const step::Program& program,
                                        const Prices& prices);

// Gathered beside the next forward pass instead of in its own phase, and the share of all such that
// this does not hide.
[[nodiscard]] bool gathered_ahead(step::PhaseKind phase, const step::Communication& communication,
                                  const Prices& prices);
[[nodiscard]] double exposed_gathers(const step::Program& program, const Prices& prices);

// Waited for, but beside the shared experts of its body (WorkTime::beside_exchange), and the share
// of all such that these do not hide.
[[nodiscard]] bool beside_shared_experts(std::int32_t communication, const step::Program& program,
                                         const Prices& prices);
[[nodiscard]] double exposed_exchanges(const step::Body& body, const step::Program& program,
                                       const Prices& prices);

// What a body asks of the host: what the GPU waits for, and the copies and the drive beside it.
struct Beside {
  Seconds waits, processors, copying, swapping;

  void add(const step::Work& work, step::PhaseKind phase, Seconds seconds);
  // Longer than the GPU's work beside it, `busy`. Copies and the drive run side by side; the drive
  // goes on while the host's processors work.
  [[nodiscard]] Seconds outlasting(Seconds busy) const;
};
[[nodiscard]] bool waits_for(const step::Work& work, step::PhaseKind phase);

// Communication beside the work of an iteration, and what it steals of that
// (docs/model/communication.md).
struct BesideWork {
  Seconds length, stolen;

  void add(const Prices& prices, std::size_t communication, double times = 1.0);
  [[nodiscard]] Seconds added_to(Seconds work) const;
};

// What the GPU waits for the host to launch the kernels of a phase.
[[nodiscard]] Seconds waiting_for_launches(const step::Phase& phase, const step::Program& program,
                                           const Prices& prices);

// Rules (docs/model/): inside one iteration of a body, communication that may overlap runs beside
// the work and slows it; what it adds to the work alone is exposed. The rest is exposed whole. A
// phase never ends before the host has launched its kernels.
[[nodiscard]] Walked walk(const step::Program& program, const Prices& prices);

}  // namespace steelyard::pace
