// PyTorch's CUDA caching allocator, simulated to the byte: rounding, pools, best fit, split, merge,
// segments, expandable segments. Rules and their sources: docs/model/vram.md, "The allocator".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/quantity.h"

namespace steelyard::vram {

// Sizes from 1 MiB to 64 GiB by powers of two; smaller and larger sizes count to the ends.
constexpr std::size_t kRoundupIntervals = 16;

// The keys of PYTORCH_CUDA_ALLOC_CONF that move a block; the defaults are PyTorch's.
struct AllocatorSettings {
  bool expandable_segments = false;
  // Steps between powers of two to which requests are rounded, for all sizes; 0: off.
  std::int64_t roundup_power2_divisions = 0;
  // The same per interval of sizes (interval i starts at 2^i MiB); where 0, the line above holds.
  std::array<std::int64_t, kRoundupIntervals> roundup_by_interval{};
  std::optional<Bytes> max_split_size{};                         // none: every block may be split
  Bytes max_non_split_rounding = Bytes(std::int64_t{20} << 20);  // used with max_split_size only
  std::optional<Bytes> device_bytes{};  // what cudaMalloc can give; none: no limit
};

// Identifies one live allocation; 0 is "none" (a request of 0 bytes).
using BlockId = std::int64_t;

class CachingAllocator {
 public:
  explicit CachingAllocator(AllocatorSettings settings);
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;
  ~CachingAllocator();

  // Where PyTorch raises OutOfMemoryError, after releasing what it can: nothing from try_allocate,
  // QuantityOverflow from allocate, which is for devices without a limit.
  BlockId allocate(Bytes requested, int stream = 0);
  [[nodiscard]] std::optional<BlockId> try_allocate(Bytes requested, int stream = 0);
  // `block` is live or 0. An event recorded on another stream is taken as complete at once.
  void free(BlockId block);
  // A block used on another stream: no longer allocated, but no request gets it before `free`.
  void retire(BlockId block);
  // The device gets larger: for telling how much a job would have needed.
  void set_device_bytes(std::optional<Bytes> bytes);
  void empty_cache();  // torch.cuda.empty_cache(): wholly free segments go back to the device

  [[nodiscard]] Bytes allocated() const;             // sum of the sizes of live blocks
  [[nodiscard]] Bytes reserved() const;              // sum of segments
  [[nodiscard]] Bytes size_of(BlockId block) const;  // block size, unsplit tail included
  // Two moments with the same live blocks at the same addresses and the same fingerprint treat
  // every further request alike (but for a collision of 64-bit hashes).
  [[nodiscard]] std::uint64_t fingerprint() const;
  [[nodiscard]] std::int64_t address_of(BlockId block) const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace steelyard::vram
