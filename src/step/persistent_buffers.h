// Megatron-LM's contiguous buffers: one for the gradients of each model chunk, and with the
// distributed optimizer one that its parameters are views of. They live as long as the job.
//
// Source: megatron/core/distributed/{distributed_data_parallel,param_and_grad_buffer}.py,
// megatron/core/optimizer/{param_layout,distrib_optimizer}.py (NVIDIA/Megatron-LM d98e8a64).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "model/graph.h"

namespace steelyard::step {

struct BufferRules {
  // Parameters begin at multiples of 64 elements and buckets end at multiples of what the ranks
  // divide: only where shards are cut out of buckets.
  bool padded = false;
  std::int64_t ranks = 1;                      // that share the shards
  bool pads_for_high_bandwidth = false;        // bucket ends at multiples of 2^16 besides
  std::optional<std::int64_t> bucket_numel{};  // a bucket closes when it holds as many; none: one
};

// Elements of the buffer of parameters with these sizes, in the order in which buckets are filled.
[[nodiscard]] std::int64_t buffer_elements(const std::vector<std::int64_t>& sizes,
                                           const BufferRules& rules);

// Sizes of the trained weights of segments [begin, end) of a graph, last layer first: gradients
// are ready in that order. Experts' weights have a buffer of their own: other ranks share them; so
// have those that are held in fp8 (`short_weights`; nothing: the type is the same for all).
[[nodiscard]] std::vector<std::int64_t> sizes_in_reverse(const model::Graph& graph,
                                                         std::size_t begin, std::size_t end,
                                                         bool experts,
                                                         std::optional<bool> short_weights = {});

}  // namespace steelyard::step
