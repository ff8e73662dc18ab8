// Page-locked memory as PyTorch's CachingHostAllocator gives it: every request becomes a power of
// two, blocks are never split and stay with the process when freed (CachingHostAllocator.h).
#pragma once

#include "base/quantity.h"

namespace steelyard::ram {

// Many tensors of unknown sizes, pinned one by one. Sizes spread evenly between 2^k and 2^(k+1)
// have the mean 1.5 * 2^k and all take 2^(k+1): 4/3 of what was asked for. Worst case 2.
[[nodiscard]] Bytes pinned_in_pieces(Bytes total);

// One tensor, or many, page-locked when `pin`, else as requested.
[[nodiscard]] Bytes page_locked(Bytes requested, bool pin);
[[nodiscard]] Bytes page_locked_in_pieces(Bytes total, bool pin);

}  // namespace steelyard::ram
