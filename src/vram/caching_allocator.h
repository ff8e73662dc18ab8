// PyTorch's CUDA caching allocator, simulated to the byte: rounding, pools, best fit, split, merge,
// segments, expandable segments. Rules and their sources: docs/model/vram.md, "The allocator".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/quantity.h"
#include "facts/allocator.h"
#include "vram/allocator.h"

namespace steelyard::vram {

using facts::kRoundupIntervals;

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

class CachingAllocator final : public Allocator {
 public:
  explicit CachingAllocator(AllocatorSettings settings);
  ~CachingAllocator() override;

  // Where PyTorch raises OutOfMemoryError, after releasing what it can: nothing from try_allocate,
  // QuantityOverflow from allocate, which is for devices without a limit.
  BlockId allocate(Bytes requested, int stream = 0);
  [[nodiscard]] std::optional<BlockId> try_allocate(Bytes requested, int stream = 0) override;
  [[nodiscard]] std::optional<BlockId> try_device(Bytes requested, int stream) override;
  // An event recorded on another stream is taken as complete at once.
  void free(BlockId block) override;
  void retire(BlockId block) override;
  [[nodiscard]] BlockId allocate_beyond(Bytes requested, int stream, Bytes spare = {}) override;
  void empty_cache() override;  // torch.cuda.empty_cache()

  [[nodiscard]] Bytes size_of(BlockId block) const override;
  [[nodiscard]] std::uint64_t fingerprint() const override;
  [[nodiscard]] std::int64_t address_of(BlockId block) const override;

  class Implementation;
  [[nodiscard]] Implementation& implementation() { return *implementation_; }

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace steelyard::vram
