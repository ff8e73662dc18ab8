// Which of a replay's allocations a slot names: one per layer and micro-batch in flight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "step/program.h"

namespace steelyard::vram {

struct Home {
  std::size_t first = 0;    // of its allocations, in the replay's list
  std::int64_t layers = 1;  // of the body that makes it
  std::int32_t chunk = 0;   // that the body belongs to
};

// By slot.
[[nodiscard]] std::vector<Home> homes_of(const step::Program& program);
// How many allocations all of them name.
[[nodiscard]] std::size_t allocations_in(const step::Program& program,
                                         const std::vector<Home>& homes);

}  // namespace steelyard::vram
