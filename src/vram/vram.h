// The first header of the room: the program of a rank -> what its GPU holds, moment by moment.
#pragma once

#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/plan.h"
#include "step/program.h"

namespace steelyard::vram {

struct Request {
  const step::Program* program = nullptr;
  const facts::DeviceMemoryConstants* device = nullptr;
  bool timeline = false;
};

struct Answer {
  facts::RankMemory memory;
  std::vector<facts::Moment> timeline;  // empty unless asked for
};

// Replays the program through the caching allocator until a step repeats.
[[nodiscard]] Answer replay(const Request& request);

}  // namespace steelyard::vram
