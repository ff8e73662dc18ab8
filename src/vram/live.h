// What a replay knows of one allocation of a slot.
#pragma once

#include "base/quantity.h"
#include "facts/plan.h"
#include "vram/allocator.h"

namespace steelyard::vram {

struct Live {
  bool alive = false;
  facts::VramCategory category = facts::VramCategory::temporaries;
  BlockId block = 0;
  Bytes bytes;  // as the allocator counts it
};

}  // namespace steelyard::vram
