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

[[nodiscard]] inline facts::VramBytes sum_of(facts::VramBytes one, const facts::VramBytes& other) {
  for (std::size_t i = 0; i < one.bytes.size(); ++i) one.bytes[i] += other.bytes[i];
  return one;
}

}  // namespace steelyard::vram
