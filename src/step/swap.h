// What ZeRO-Infinity keeps on a node's drive (offload.parameters, offload.optimizer = nvme) and
// moves in a step. Sources: DeepSpeed, deepspeed/runtime/zero/stage3.py and runtime/swap_tensor,
// read at edaa722; its defaults where a job has no key.
#pragma once

#include <cstdint>

#include "base/quantity.h"
#include "facts/job.h"

namespace steelyard::step {

// A rank steps its partition in sub-groups of so many elements (zero/config.py, sub_group_size).
inline constexpr std::int64_t kSubGroup = 1'000'000'000;
// Pieces below that stay in memory (swap_tensor/utils.py, MIN_AIO_BYTES).
inline constexpr std::int64_t kLeastSwapped = 1 << 20;

// The sub-groups of a rank's partition.
[[nodiscard]] std::int64_t sub_groups(std::int64_t partition);

// Whether the trained part of a partition goes to the drive: stage3.py fills a buffer of max_in_cpu
// (1e9) elements with whole sub-groups, and the first of several is larger than that. Less than one
// stays in host memory, more than one moves as a whole.
[[nodiscard]] bool swaps_trained(std::int64_t partition);

// What of gradients the backward pass writes while it runs: they leave when a buffer as large as a
// sub-group is full (async_swapper.py, _make_swap_space); the last one goes when the step begins.
[[nodiscard]] Ratio written_in_backward(std::int64_t partition);

// Of `bytes`, what a step of so many sub-groups moves before or behind the others: all that it
// moves when nothing overlaps.
[[nodiscard]] Bytes of_one_sub_group(Bytes bytes, std::int64_t sub_groups);

}  // namespace steelyard::step
