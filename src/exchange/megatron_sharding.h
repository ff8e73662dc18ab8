// Who holds what, where Megatron-LM's arguments leave it to be derived.
#pragma once

#include <cstdint>

#include "facts/job.h"

namespace steelyard::exchange {

// Ranks that split each expert, where --expert-tensor-parallel-size does not say: the
// tensor-parallel ones. Where a stage has not so many for each part of the experts, Megatron-LM
// stops (parallel_state.py), so that what ran had its experts whole.
[[nodiscard]] std::int64_t expert_tensor_ranks(const facts::Job& job, std::int64_t stages);

}  // namespace steelyard::exchange
