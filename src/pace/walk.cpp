#include "pace/walk.h"

#include <algorithm>
#include <vector>

#include "pace/schedule.h"

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
  double kernels = 0.0;
  double again = 0.0;  // of them: run again in a backward pass, which Python drives
  Seconds calling;     // the host, beside launching them

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
  sum.kernels += part.kernels * t;
  sum.again += part.again * t;
  sum.calling += part.calling * t;
}

void add_work(Part& part, const Work& work, const WorkTime& time, PhaseKind phase) {
  part.kernels += time.launches;
  if (work.recomputed) part.again += time.launches;
  part.calling += time.call;
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

struct Shares {  // of communication that is exposed
  double at_borders, gathered;
};

bool works_on_gpu(const step::Event& event, const Program& program) {
  return event.kind == EventKind::work &&
         !on_the_host(program.work[static_cast<std::size_t>(event.index)].kind);
}

Part one_iteration(const Body& body, PhaseKind phase, const Program& program, const Prices& prices,
                   const Shares& shares) {
  Part part;
  BesideWork beside;
  Beside host;
  const double exchanged = exposed_exchanges(body, program, prices);
  for (const step::Event& event : body.events) {
    const auto index = static_cast<std::size_t>(event.index);
    if (event.kind == EventKind::work && on_the_host(program.work[index].kind)) {
      host.add(program.work[index], phase, prices.work[index].seconds);
    } else if (event.kind == EventKind::work) {
      add_work(part, program.work[index], prices.work[index], phase);
    } else if (event.kind == EventKind::communicate) {
      const Seconds length = prices.communication[index];
      part.calling += prices.collective_call;
      if (crosses_border(body, program.communication[index])) {
        part.exposed += length * shares.at_borders;
      } else if (gathered_ahead(phase, program.communication[index], prices)) {
        part.exposed += length * shares.gathered;
      } else if (program.communication[index].overlaps) {
        beside.add(prices, index);
      } else if (beside_shared_experts(event.index, program, prices)) {
        part.exposed += length * exchanged;
      } else {
        part.exposed += length;
      }
    }
  }
  part.exposed += beside.added_to(part.busy());
  part.offload += host.waits + host.outlasting(part.busy() + part.exposed);
  return part;
}

// What the host takes to launch a kernel of a phase, and one that a checkpoint runs again in it:
// that is the module's forward() once more, driven by Python inside of the backward pass
// (torch/utils/checkpoint.py; Megatron-LM, tensor_parallel/random.py, CheckpointFunction).
struct Launch {
  Seconds usual, again;

  [[nodiscard]] Seconds of(const Work& work) const { return work.recomputed ? again : usual; }
};

// The host and the GPU beside each other: a kernel begins when it is launched and the one before it
// has ended.
struct Clocks {
  Seconds host, gpu;

  void run(const WorkTime& time, Seconds launch) {
    host += launch * time.launches + time.call;
    gpu = std::max(gpu, host) + time.seconds;
    if (time.read_by_host) host = std::max(host, gpu);
  }
};

bool reads_of_the_gpu(const Phase& phase, const Program& program, const Prices& prices) {
  return std::any_of(phase.bodies.begin(), phase.bodies.end(), [&](const Body& body) {
    return std::any_of(body.events.begin(), body.events.end(), [&](const step::Event& event) {
      return works_on_gpu(event, program) &&
             prices.work[static_cast<std::size_t>(event.index)].read_by_host;
    });
  });
}

void play(const Body& body, const Program& program, const Prices& prices, const Launch& launch,
          Clocks& clocks) {
  const double exchanged = exposed_exchanges(body, program, prices);
  for (const step::Event& event : body.events) {
    const auto index = static_cast<std::size_t>(event.index);
    if (works_on_gpu(event, program)) {
      clocks.run(prices.work[index], launch.of(program.work[index]));
    } else if (event.kind == EventKind::communicate) {
      const bool hidden = program.communication[index].overlaps;
      const double waited = beside_shared_experts(event.index, program, prices) ? exchanged : 1.0;
      clocks.run({.seconds = prices.communication[index] * (hidden ? 0.0 : waited),
                  .launches = 0.0,
                  .call = prices.collective_call},
                 launch.usual);
    }
  }
}

// A phase in which the host waits for the GPU now and then, so that it cannot run ahead of what
// comes behind: the clocks of both, iteration by iteration until these are alike.
Seconds played(const Phase& phase, const Program& program, const Prices& prices,
               const Launch& launch) {
  constexpr std::int64_t kUntilAlike = 3;
  Clocks clocks;
  for (const Body& body : phase.bodies) {
    Clocks before = clocks;
    const std::int64_t times = std::min(body.repeat, kUntilAlike);
    for (std::int64_t i = 0; i < times; ++i) {
      before = clocks;
      play(body, program, prices, launch, clocks);
    }
    const double rest = static_cast<double>(body.repeat - times);
    clocks.gpu += (clocks.gpu - before.gpu) * rest;
    clocks.host += (clocks.host - before.host) * rest;
  }
  return std::max(clocks.host, clocks.gpu);
}

struct PhaseTime {
  Part once;
  Seconds waiting;  // for the host's launches
};

PhaseTime time_of(const Phase& phase, const Program& program, const Prices& prices) {
  PhaseTime time;
  const Shares shares{exposed_at_borders(phase, program, prices), exposed_gathers(program, prices)};
  for (const Body& body : phase.bodies) {
    add(time.once, one_iteration(body, phase.kind, program, prices, shares), body.repeat);
  }
  Part& once = time.once;
  const bool driven = phase.kind == PhaseKind::forward || phase.kind == PhaseKind::generation ||
                      phase.kind == PhaseKind::scoring || belongs_to_optimizer(phase.kind);
  const Launch launch{driven ? prices.kernel_launch_forward : prices.kernel_launch,
                      prices.kernel_launch_forward};
  const Seconds working = once.busy() + once.exposed + once.offload;
  Seconds lasts =
      launch.usual * (once.kernels - once.again) + launch.again * once.again + once.calling;
  if (launch.usual > Seconds() && reads_of_the_gpu(phase, program, prices)) {
    lasts = std::max(lasts, played(phase, program, prices, launch));
  }
  time.waiting = std::max(Seconds(), lasts - working);
  (belongs_to_optimizer(phase.kind) ? once.optimizer : once.memory) += time.waiting;
  return time;
}

struct Passing {  // of all micro-batches
  Seconds forward, backward, weights;
};

// Products whose result no other stage waits for.
Seconds gradients_of_weights(const Phase& phase, const Program& program, const Prices& prices) {
  Seconds sum;
  for (const Body& body : phase.bodies) {
    for (const step::Event& event : body.events) {
      if (event.kind != EventKind::work) continue;
      const auto index = static_cast<std::size_t>(event.index);
      const auto name = static_cast<std::size_t>(program.work[index].name);
      if (name >= program.names.size() || !program.names[name].ends_with("weight_gradient"))
        continue;
      sum += prices.work[index].seconds * static_cast<double>(body.repeat);
    }
  }
  return sum;
}

// What this rank waits for the other stages of its pipeline.
Seconds bubble_of(const Passing& passing, const Program& program, const Prices& prices) {
  const std::int64_t turns = program.chunks * program.micro_batches;
  const Seconds all = passing.forward + passing.backward;
  const bool alike = std::all_of(prices.stage_shares.begin(), prices.stage_shares.end(),
                                 [](double share) { return share == 1.0; });
  const bool splits = prices.schedule == facts::Schedule::zero_bubble && program.chunks == 1;
  if (program.stages <= 1 || (alike && !splits)) {
    // The last stage begins when the first micro-batch has passed the others; they end as late.
    return all * (static_cast<double>(program.stages - 1) / static_cast<double>(turns));
  }
  const double times = 1.0 / static_cast<double>(turns);
  Pipeline pipeline{.schedule = prices.schedule,
                    .stages = {},
                    .chunks = program.chunks,
                    .micro_batches = program.micro_batches,
                    .group = prices.micro_batch_group};
  for (std::int64_t stage = 0; stage < program.stages; ++stage) {
    const double share = alike ? 1.0 : prices.stage_shares[static_cast<std::size_t>(stage)];
    pipeline.stages.push_back({passing.forward * times * share, passing.backward * times * share,
                               passing.weights * times * share});
  }
  return std::max(Seconds(), played(pipeline, prices.workshop) - all);
}

// Forward passes alone, over the stages of a pipeline: micro-batches of one question follow each
// other, so that it fills once for all of them; a token is written when the one before it has come
// through, so each waits for all other stages (Megatron-LM, schedules.py, forward_only; inference/
// text_generation/forward_step.py splits no batch of single tokens).
Seconds bubble_without_backward(const Phase& phase, const Program& program, Seconds once,
                                const step::Pass& pass, std::int64_t updates) {
  const bool writes = phase.kind == PhaseKind::generation;
  if (program.stages <= 1 || (!writes && phase.kind != PhaseKind::scoring)) return {};
  const bool passes_on =
      std::any_of(phase.bodies.begin(), phase.bodies.end(), [&program](const Body& body) {
        return std::any_of(body.events.begin(), body.events.end(), [&](const step::Event& event) {
          return event.kind == EventKind::communicate &&
                 program.communication[static_cast<std::size_t>(event.index)].kind ==
                     step::Collective::send;
        });
      });
  if (!passes_on) return {};
  const double others = static_cast<double>(program.stages - 1);
  const std::int64_t times = writes ? checked_multiply(pass.repeat, phase.repeat) : 1;
  const double fills = static_cast<double>(checked_multiply(times, updates));
  return once * (others * fills / (writes ? 1.0 : static_cast<double>(program.chunks)));
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
  walked.kernels += once.kernels * times;
}

}  // namespace

bool belongs_to_optimizer(PhaseKind kind) {
  return kind == PhaseKind::clip || kind == PhaseKind::optimizer || kind == PhaseKind::zero_grad;
}

bool waits_for(const Work& work, PhaseKind phase) {
  if (of_drive(work.kind)) return belongs_to_optimizer(phase) && !work.beside_host;
  return work.kind != WorkKind::transfer || belongs_to_optimizer(phase);
}

void Beside::add(const Work& work, PhaseKind phase, Seconds seconds) {
  if (waits_for(work, phase)) {
    waits += seconds;
    if (work.kind == WorkKind::host) processors += seconds;
  } else {
    (of_drive(work.kind) ? swapping : copying) += seconds;
  }
}

Seconds Beside::outlasting(Seconds busy) const {
  return std::max({Seconds(), copying - busy, swapping - processors - busy});
}

bool crosses_border(const Body& body, const step::Communication& communication) {
  return communication.overlaps && communication.kind == step::Collective::send &&
         std::none_of(body.events.begin(), body.events.end(),
                      [](const step::Event& event) { return event.kind == EventKind::work; });
}

double exposed_at_borders(const Phase& phase, const Program& program, const Prices& prices) {
  Seconds working;
  BesideWork crossing;
  for (const Body& body : phase.bodies) {
    const double times = static_cast<double>(body.repeat);
    for (const step::Event& event : body.events) {
      const auto index = static_cast<std::size_t>(event.index);
      if (event.kind == EventKind::work && !on_the_host(program.work[index].kind)) {
        working += prices.work[index].seconds * times;
      } else if (event.kind == EventKind::communicate &&
                 crosses_border(body, program.communication[index])) {
        crossing.add(prices, index, times);
      }
    }
  }
  if (!(crossing.length > Seconds())) return 0.0;
  return (crossing.added_to(working) / crossing.length).value();
}

bool gathered_ahead(PhaseKind phase, const step::Communication& communication,
                    const Prices& prices) {
  return prices.gathers_beside_forward && belongs_to_optimizer(phase) && !communication.overlaps &&
         communication.kind == step::Collective::all_gather;
}

bool beside_shared_experts(std::int32_t communication, const Program& program,
                           const Prices& prices) {
  const auto index = static_cast<std::size_t>(communication);
  return index < prices.beside_shared.size() && prices.beside_shared[index] &&
         !program.communication[index].overlaps;
}

double exposed_exchanges(const Body& body, const Program& program, const Prices& prices) {
  if (prices.beside_shared.empty()) return 1.0;
  Seconds shared;
  BesideWork sent;
  for (const step::Event& event : body.events) {
    const auto index = static_cast<std::size_t>(event.index);
    if (works_on_gpu(event, program) && prices.work[index].beside_exchange) {
      shared += prices.work[index].seconds;
    } else if (event.kind == EventKind::communicate &&
               beside_shared_experts(event.index, program, prices)) {
      sent.add(prices, index);
    }
  }
  if (!(sent.length > Seconds())) return 1.0;
  return std::min(1.0, (sent.added_to(shared) / sent.length).value());
}

double exposed_gathers(const Program& program, const Prices& prices) {
  if (!prices.gathers_beside_forward) return 1.0;
  Seconds working;  // of one micro-batch
  BesideWork gathered;
  for (const step::Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      for (const Body& body : phase.bodies) {
        const double times = static_cast<double>(body.repeat);
        for (const step::Event& event : body.events) {
          const auto index = static_cast<std::size_t>(event.index);
          if (event.kind == EventKind::communicate) {
            if (gathered_ahead(phase.kind, program.communication[index], prices))
              gathered.add(prices, index, times);
          } else if (event.kind == EventKind::work && phase.kind == PhaseKind::forward &&
                     !on_the_host(program.work[index].kind)) {
            working += prices.work[index].seconds * times;
          }
        }
      }
    }
  }
  if (!(gathered.length > Seconds())) return 1.0;
  return (gathered.added_to(working) / gathered.length).value();
}

// With work w, communication c beside it and slow-down s, work proceeds at 1 / (1 + s) until the
// communication ends: c + (w - c / (1 + s)) in all, or c when that is longer. Less w that is:
Seconds BesideWork::added_to(Seconds work) const {
  return std::max(length - work, stolen);
}

void BesideWork::add(const Prices& prices, std::size_t communication, double times) {
  length += prices.communication[communication] * times;
  stolen += prices.stolen[communication] * times;
}

Seconds waiting_for_launches(const Phase& phase, const Program& program, const Prices& prices) {
  return time_of(phase, program, prices).waiting;
}

Walked walk(const Program& program, const Prices& prices) {
  Walked walked;
  Passing passing;
  Seconds passed_through;
  const bool splits = prices.schedule == facts::Schedule::zero_bubble;
  for (std::size_t i = 0; i < program.step.size(); ++i) {
    const step::Pass& pass = program.step[i];
    const std::int64_t updates = program.updates.of(i);
    std::vector<PhaseTime> times;
    for (const Phase& phase : pass.phases) times.push_back(time_of(phase, program, prices));
    step::for_each_phase(pass, [&](const Phase& phase) {
      const PhaseTime& time = times[static_cast<std::size_t>(&phase - pass.phases.data())];
      const std::int64_t often =
          checked_multiply(checked_multiply(pass.repeat, updates), phase.repeat);
      add(walked, time, often);
      const double repeat = static_cast<double>(often);
      const Seconds once = time.once.busy() + time.once.exposed + time.once.offload;
      if (phase.kind == PhaseKind::forward) passing.forward += once * repeat;
      passed_through += bubble_without_backward(phase, program, once, pass, updates);
      if (phase.kind != PhaseKind::backward) return;
      passing.backward += once * repeat;
      if (splits) passing.weights += gradients_of_weights(phase, program, prices) * repeat;
    });
  }
  walked.breakdown.bubble = bubble_of(passing, program, prices) + passed_through;
  return walked;
}

}  // namespace steelyard::pace
