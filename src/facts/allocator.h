// What PYTORCH_CUDA_ALLOC_CONF says of PyTorch's caching allocator: train.allocator.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/quantity.h"

namespace steelyard::facts {

// Sizes from 1 MiB to 64 GiB by powers of two; smaller and larger sizes count to the ends.
constexpr std::size_t kRoundupIntervals = 16;

struct AllocatorConf {
  std::string text;  // as it was written: "expandable_segments:True,max_split_size_mb:128"
  bool expandable_segments = false;
  // Steps between powers of two to which requests are rounded, for all sizes; 0: off.
  std::int64_t roundup_power2_divisions = 0;
  // The same per interval of sizes (interval i starts at 2^i MiB); where 0, the line above holds.
  std::array<std::int64_t, kRoundupIntervals> roundup_by_interval{};
  std::optional<Bytes> max_split_size{};
  std::optional<Bytes> max_non_split_rounding{};
};

}  // namespace steelyard::facts
