// Which of a replay's allocations a slot names: one per layer and micro-batch in flight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/quantity.h"
#include "facts/plan.h"
#include "step/expand.h"
#include "step/program.h"

namespace steelyard::vram {

struct Home {
  std::size_t first = 0;    // of its allocations, in the replay's list
  std::size_t stride = 1;   // to the next one: what a layer makes lies side by side
  std::int64_t layers = 1;  // of the body that makes it
  std::int32_t chunk = 0;   // that the body belongs to
};

// What a replay reads of a slot with every event, close together.
struct Track {
  std::size_t first = 0, stride = 1;  // its home's
  Bytes bytes;
  std::int32_t name = 0;
  facts::VramCategory category = facts::VramCategory::temporaries;
  step::Stream stream = step::Stream::compute;
  step::Naming naming = step::Naming::layer_of_micro_batch;
  bool managed = false, recorded = false;

  [[nodiscard]] std::size_t at(const step::Instance& instance) const {
    return first + static_cast<std::size_t>(instance.of(naming)) * stride;
  }
};

// By slot.
[[nodiscard]] std::vector<Home> homes_of(const step::Program& program);
[[nodiscard]] std::vector<Track> tracks_of(const step::Program& program,
                                           const std::vector<Home>& homes);
// The same, of tensors of other sizes.
[[nodiscard]] std::vector<Track> resized(std::vector<Track> tracks,
                                         const std::vector<Bytes>& slots);
// How many allocations all of them name.
[[nodiscard]] std::size_t allocations_in(const step::Program& program,
                                         const std::vector<Home>& homes);

}  // namespace steelyard::vram
