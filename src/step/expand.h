// A compact program written out: every event in the order in which the rank meets it, with the
// number that tells the allocations of one slot apart.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "step/program.h"

namespace steelyard::step {

// Where a step stands among its micro-batches. One per step: it begins with micro-batch 0.
class Progress {
 public:
  // The micro-batch that the phase works on.
  [[nodiscard]] std::int64_t micro_batch(const Phase& phase) { return of(phase); }
  void passed(const Phase& phase) { ++of(phase); }
  // The oldest micro-batch in flight of that chunk.
  [[nodiscard]] std::int64_t oldest(std::int32_t chunk) const {
    const auto index = static_cast<std::size_t>(chunk);
    return index < backward_.size() ? backward_[index] : 0;
  }

 private:
  std::int64_t& of(const Phase& phase) {
    std::vector<std::int64_t>& counts = phase.kind == PhaseKind::forward    ? forward_
                                        : phase.kind == PhaseKind::backward ? backward_
                                                                            : others_;
    const auto chunk = static_cast<std::size_t>(phase.chunk);
    if (counts.size() <= chunk) counts.resize(chunk + 1);
    if (phase.kind != PhaseKind::forward && phase.kind != PhaseKind::backward) counts[chunk] = 0;
    return counts[chunk];
  }
  std::vector<std::int64_t> forward_, backward_, others_;  // by chunk
};

// What tells the allocations of one slot apart.
enum class Naming : std::uint8_t { layer_of_micro_batch, layer, micro_batch, of_the_step };

[[nodiscard]] inline Naming naming_of(const Slot& slot) {
  if (slot.stays_for_the_step()) return Naming::of_the_step;
  if (slot.shared) return Naming::micro_batch;
  return slot.outlives_micro_batch ? Naming::layer : Naming::layer_of_micro_batch;
}

// The number of an event's allocation among those of its slot: layers of the first micro-batch in
// flight, then those of the second, ... What stays for the step goes by the step's micro-batches:
// it is made outside of layers; a body behind the step frees all, one with each iteration.
class Instance {
 public:
  Instance(const Program& program, const Body& body, std::int64_t layer, std::int64_t micro_batch)
      : numbers_{micro_batch % program.in_flight * body.repeat + layer, layer,
                 micro_batch % program.in_flight, micro_batch + layer} {}

  [[nodiscard]] std::int64_t of(Naming naming) const {
    return numbers_[static_cast<std::size_t>(naming)];
  }
  [[nodiscard]] std::int64_t of(const Slot& slot) const { return of(naming_of(slot)); }
  [[nodiscard]] std::int64_t layer() const { return of(Naming::layer); }
  [[nodiscard]] std::int64_t micro_batch() const { return of(Naming::micro_batch); }  // in flight

 private:
  std::array<std::int64_t, 4> numbers_;  // by Naming
};

// Calls visit(pass) for the passes of a step in their order; updates that repeat come twice, which
// later ones are like.
template <class Visit>
void for_each_pass(const Program& program, Visit&& visit) {
  const Repeated& updates = program.updates;
  for (std::size_t i = 0; i < program.step.size(); ++i) {
    if (i == updates.begin && updates.times > 1) {
      for (std::size_t u = updates.begin; u < updates.end; ++u) visit(program.step[u]);
    }
    visit(program.step[i]);
  }
}

// Calls visit(phase, body, instance) for every body and layer of one run of the pass; of a phase
// that repeats itself twice.
template <class Visit>
void expand_once(const Program& program, const Pass& pass, Progress& progress, Visit&& visit) {
  for_each_phase(pass, [&](const Phase& phase) {
    const std::int64_t micro_batch = progress.micro_batch(phase);
    const std::int64_t times = std::min<std::int64_t>(phase.repeat, 2);
    for (std::int64_t time = 0; time < times; ++time) {
      for (const Body& body : phase.bodies) {
        for (std::int64_t i = 0; i < body.repeat; ++i) {
          const std::int64_t layer = body.reversed ? body.repeat - 1 - i : i;
          visit(phase, body, Instance(program, body, layer, micro_batch));
        }
      }
    }
    progress.passed(phase);
  });
}

}  // namespace steelyard::step
