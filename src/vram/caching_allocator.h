// PyTorch's CUDA caching allocator, simulated to the byte: rounding, pools, split, best fit, merge,
// segments. Rules and their sources: docs/model/vram.md, "The allocator".
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "base/quantity.h"

namespace steelyard::vram {

struct AllocatorSettings {
  bool expandable_segments = false;
  std::int64_t roundup_power2_divisions = 0;  // 0: off
};

// Identifies one live allocation; 0 is "none" (a request of 0 bytes).
using BlockId = std::int64_t;

class CachingAllocator {
 public:
  explicit CachingAllocator(AllocatorSettings settings);
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;
  ~CachingAllocator();

  BlockId allocate(Bytes requested, int stream = 0);
  void free(BlockId block);

  [[nodiscard]] Bytes allocated() const;  // sum of the sizes of live blocks
  [[nodiscard]] Bytes reserved() const;   // sum of segments
  [[nodiscard]] Bytes size_of(BlockId block) const;  // block size, unsplit tail included

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace steelyard::vram
