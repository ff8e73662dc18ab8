// Page-locked memory as PyTorch's CachingHostAllocator gives it: every request becomes a power of
// two, blocks are never split and stay with the process when freed (CachingHostAllocator.h).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/quantity.h"
#include "step/program.h"

namespace steelyard::ram {

// Many tensors of unknown sizes, pinned one by one. Sizes spread evenly between 2^k and 2^(k+1)
// have the mean 1.5 * 2^k and all take 2^(k+1): 4/3 of what was asked for. Worst case 2.
inline constexpr Ratio kRoundingOfUnknown{4.0 / 3.0};

// Which tensors are made, one from each weight.
struct PinnedTensors {
  bool trainable = true, frozen = false;      // of which weights
  std::optional<double> bytes_per_element{};  // of the tensor; none: as the weight is held
  std::int64_t parts = 1;                     // of each weight; a rank has one
};

// By how much more than asked for the tensors of one kind take, pinned one by one: 1 to 2.
// kRoundingOfUnknown where no weight of that kind is known.
[[nodiscard]] Ratio rounding_of(const std::vector<step::WeightSize>& weights,
                                const PinnedTensors& tensors);

// One tensor, page-locked when `pin`, else as requested.
[[nodiscard]] Bytes page_locked(Bytes requested, bool pin);

}  // namespace steelyard::ram
