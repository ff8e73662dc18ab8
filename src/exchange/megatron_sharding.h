// Who holds what, where Megatron-LM's arguments say it in words or leave it to be derived.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "facts/job.h"

namespace steelyard::exchange {

// --data-parallel-sharding-strategy (distributed/fsdp/src/megatron_fsdp): what of parameters,
// gradients and states a rank has a shard of; none where the word is no strategy.
inline constexpr std::string_view kStrategies =
    "no_shard, optim, optim_grads or optim_grads_params";
[[nodiscard]] std::optional<facts::Sharding> sharding_strategy(std::string_view word);

// Ranks that split each expert, where --expert-tensor-parallel-size does not say: the
// tensor-parallel ones. Where a stage has not so many for each part of the experts, Megatron-LM
// stops (parallel_state.py), so that what ran had its experts whole.
[[nodiscard]] std::int64_t expert_tensor_ranks(const facts::Job& job, std::int64_t stages);

}  // namespace steelyard::exchange
