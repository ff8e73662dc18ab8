#include "pace/walk.h"

#include <algorithm>
#include <vector>

namespace steelyard::pace {
namespace {

using step::Body;
using step::EventKind;
using step::Phase;
using step::PhaseKind;
using step::Program;
using step::Work;
using step::WorkKind;

struct Part {  // of a body or a phase
  Seconds compute, memory, optimizer, exposed, offload;
  Flops recomputed;
  std::int64_t kernels = 0;

  [[nodiscard]] Seconds busy() const { return compute + memory + optimizer; }
};

void add(Part& sum, const Part& part, std::int64_t times) {
  const double t = static_cast<double>(times);
  sum.compute += part.compute * t;
  sum.memory += part.memory * t;
  sum.optimizer += part.optimizer * t;
  sum.exposed += part.exposed * t;
  sum.offload += part.offload * t;
  sum.recomputed += part.recomputed * t;
  sum.kernels = checked_add(sum.kernels, checked_multiply(part.kernels, times));
}

bool belongs_to_optimizer(PhaseKind kind) {
  return kind == PhaseKind::clip || kind == PhaseKind::optimizer || kind == PhaseKind::zero_grad;
}

void add_work(Part& part, const Work& work, const WorkTime& time, PhaseKind phase) {
  ++part.kernels;
  if (belongs_to_optimizer(phase) || work.kind == WorkKind::optimizer) {
    part.optimizer += time.seconds;
  } else if (time.arithmetic_bound) {
    part.compute += time.seconds;
  } else {
    part.memory += time.seconds;
  }
  if (work.recomputed && (work.kind == WorkKind::gemm || work.kind == WorkKind::attention)) {
    part.recomputed += work.flops;
  }
}

// With work w, communication c beside it and slow-down s, work proceeds at 1 / (1 + s) until the
// communication ends: c + (w - c / (1 + s)) in all, or c when that is longer. Less w that is:
Seconds added_by_overlap(Seconds work, Seconds communication, Ratio slowdown) {
  const double s = slowdown.value();
  return std::max(communication - work, communication * (s / (1.0 + s)));
}

Part one_iteration(const Body& body, PhaseKind phase, const Program& program,
                   const Prices& prices) {
  Part part;
  Seconds beside;
  Seconds copying;
  for (const step::Event& event : body.events) {
    const auto index = static_cast<std::size_t>(event.index);
    if (event.kind == EventKind::work && on_the_host(program.work[index].kind)) {
      const bool waits = program.work[index].kind == WorkKind::host || belongs_to_optimizer(phase);
      (waits ? part.offload : copying) += prices.work[index].seconds;
    } else if (event.kind == EventKind::work) {
      add_work(part, program.work[index], prices.work[index], phase);
    } else if (event.kind == EventKind::communicate) {
      (program.communication[index].overlaps ? beside : part.exposed) +=
          prices.communication[index];
    }
  }
  part.exposed += added_by_overlap(part.busy(), beside, prices.overlap_slowdown);
  part.offload += std::max(Seconds(), copying - part.busy() - part.exposed);
  return part;
}

struct PhaseTime {
  Part once;
  Seconds waiting;  // for the host's launches
};

PhaseTime time_of(const Phase& phase, const Program& program, const Prices& prices) {
  PhaseTime time;
  for (const Body& body : phase.bodies) {
    add(time.once, one_iteration(body, phase.kind, program, prices), body.repeat);
  }
  Part& once = time.once;
  const bool driven = phase.kind == PhaseKind::forward || phase.kind == PhaseKind::generation ||
                      phase.kind == PhaseKind::scoring;
  const Seconds launch = driven ? prices.kernel_launch_forward : prices.kernel_launch;
  const Seconds launching = launch * static_cast<double>(once.kernels);
  time.waiting = std::max(Seconds(), launching - once.busy() - once.exposed - once.offload);
  (belongs_to_optimizer(phase.kind) ? once.optimizer : once.memory) += time.waiting;
  return time;
}

void add(Walked& walked, const PhaseTime& time, std::int64_t repeat) {
  const Part& once = time.once;
  const double times = static_cast<double>(repeat);
  walked.breakdown.compute += once.compute * times;
  walked.breakdown.memory_bound += once.memory * times;
  walked.breakdown.optimizer += once.optimizer * times;
  walked.breakdown.exposed_communication += once.exposed * times;
  walked.breakdown.offload += once.offload * times;
  walked.host_bound += time.waiting * times;
  walked.recomputed += once.recomputed * times;
  walked.kernels = checked_add(walked.kernels, checked_multiply(once.kernels, repeat));
}

}  // namespace

Walked walk(const Program& program, const Prices& prices) {
  Walked walked;
  Seconds passing;  // forward and backward of all micro-batches
  for (std::size_t i = 0; i < program.step.size(); ++i) {
    const step::Pass& pass = program.step[i];
    const std::int64_t updates = program.updates.of(i);
    std::vector<PhaseTime> times;
    for (const Phase& phase : pass.phases) times.push_back(time_of(phase, program, prices));
    step::for_each_phase(pass, [&](const Phase& phase) {
      const PhaseTime& time = times[static_cast<std::size_t>(&phase - pass.phases.data())];
      const std::int64_t repeat =
          checked_multiply(checked_multiply(pass.repeat, updates), phase.repeat);
      add(walked, time, repeat);
      if (phase.kind != PhaseKind::forward && phase.kind != PhaseKind::backward) return;
      const Seconds once = time.once.busy() + time.once.exposed + time.once.offload;
      passing += once * static_cast<double>(repeat);
    });
  }
  // The last stage begins when the first micro-batch has passed the others, and they end as late.
  const double waits = static_cast<double>(program.stages - 1) /
                       static_cast<double>(program.chunks * program.micro_batches);
  walked.breakdown.bubble = passing * waits;
  return walked;
}

}  // namespace steelyard::pace
