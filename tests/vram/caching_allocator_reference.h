// The caching allocator once more, plain and slow: segments hold their blocks in address order,
// every search is a loop over all of them. For comparison with vram::CachingAllocator.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "vram/caching_allocator.h"

namespace steelyard::testing {

class PlainAllocator {
 public:
  explicit PlainAllocator(const vram::AllocatorSettings& settings);

  // Nothing when the device is full; otherwise a number for free().
  std::optional<std::int64_t> allocate(std::int64_t requested, int stream);
  void free(std::int64_t id);
  void empty_cache();

  [[nodiscard]] std::int64_t allocated() const;
  [[nodiscard]] std::int64_t reserved() const;

 private:
  struct Block {
    std::int64_t size = 0;
    bool mapped = true;
    std::int64_t id = 0;  // of the live allocation; 0: free
  };
  struct Segment {  // the order of segments is the order of their addresses
    bool small = false;
    int stream = 0;
    std::vector<Block> blocks;
  };
  struct Place {
    std::size_t segment, block;
  };

  [[nodiscard]] std::int64_t rounded(std::int64_t requested) const;
  [[nodiscard]] std::optional<Place> best_fit(std::int64_t size, int stream) const;
  std::optional<Place> with_new_memory(std::int64_t size, int stream);
  std::optional<Place> expanded(std::int64_t size, int stream);
  std::optional<Place> map_from(std::size_t segment, std::size_t first, std::int64_t size);
  bool release_oversize(std::int64_t size, int stream);
  void unmap_free_pages(Segment& segment);
  [[nodiscard]] std::int64_t room() const;  // what the device can still give
  [[nodiscard]] std::int64_t max_split() const;
  static void join_neighbours(Segment& segment);

  vram::AllocatorSettings settings_;
  std::vector<Segment> segments_;
  std::int64_t last_id_ = 0;
};

}  // namespace steelyard::testing
