// A compact program written out: every event in the order in which the rank meets it, with the
// number that tells the allocations of one slot apart.
#pragma once

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

// The number of an event's allocation among those of its slot: layers of the first micro-batch in
// flight, then those of the second, ...
class Instance {
 public:
  Instance(const Program& program, const Body& body, std::int64_t layer, std::int64_t micro_batch)
      : layer_(layer),
        micro_batch_(micro_batch % program.in_flight),
        in_micro_batch_(micro_batch_ * body.repeat + layer) {}

  [[nodiscard]] std::int64_t of(const Slot& slot) const {
    if (slot.shared) return micro_batch_;
    return slot.outlives_micro_batch ? layer_ : in_micro_batch_;
  }
  [[nodiscard]] std::int64_t layer() const { return layer_; }

 private:
  std::int64_t layer_, micro_batch_, in_micro_batch_;
};

// Calls visit(phase, body, instance) for every body and layer of one run of the pass.
template <class Visit>
void expand_once(const Program& program, const Pass& pass, Progress& progress, Visit&& visit) {
  for (const Phase& phase : pass.phases) {
    const std::int64_t micro_batch = progress.micro_batch(phase);
    for (const Body& body : phase.bodies) {
      for (std::int64_t i = 0; i < body.repeat; ++i) {
        const std::int64_t layer = body.reversed ? body.repeat - 1 - i : i;
        visit(phase, body, Instance(program, body, layer, micro_batch));
      }
    }
    progress.passed(phase);
  }
}

}  // namespace steelyard::step
