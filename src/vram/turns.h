// Ranks of one job, several side by side.
#pragma once

#include "vram/experience.h"
#include "vram/vram.h"

namespace steelyard::vram {

// vram.h's, with what replays of programs of the same kind have learnt; the answer is the same.
[[nodiscard]] Answer replay(const Request& request, Experience& experience);

}  // namespace steelyard::vram
