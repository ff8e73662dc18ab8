// TensorFlow's allocator once more, plain and slow: regions hold their chunks in address order,
// free ones stand in 21 bins that are searched one behind the other. For comparison with
// vram::BfcAllocator.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "vram/bfc_allocator.h"

namespace steelyard::testing {

class PlainBfc {
 public:
  explicit PlainBfc(const vram::BfcSettings& settings);

  // Nothing when the pool is full; otherwise a number for free().
  std::optional<std::int64_t> allocate(std::int64_t requested);
  void free(std::int64_t id);

  [[nodiscard]] std::int64_t allocated() const;
  [[nodiscard]] std::int64_t reserved() const;

 private:
  struct Chunk {
    std::int64_t size = 0;
    std::int64_t id = 0;  // of the live allocation; 0: free
  };
  struct Region {
    std::int64_t number = 0;  // the order of addresses
    std::vector<Chunk> chunks;
  };
  struct Place {
    std::size_t region, chunk;
  };

  [[nodiscard]] std::optional<Place> best_fit(std::int64_t rounded) const;
  std::optional<std::int64_t> take(std::int64_t rounded);
  bool extend(std::int64_t rounded);
  bool drop_free_regions(std::int64_t rounded);

  vram::BfcSettings settings_;
  std::int64_t region_bytes_;
  std::vector<Region> regions_;
  std::int64_t last_id_ = 0, last_region_ = 0;
};

}  // namespace steelyard::testing
