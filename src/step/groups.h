// Groups of ranks that work together, and where they sit: neighbours of a tensor-parallel group are
// neighbours in the job, then come context, data and pipeline (Megatron's order tp-cp-dp-pp, also
// torchtitan's from the inside out).
#pragma once

#include <algorithm>
#include <cstdint>

#include "facts/job.h"

namespace steelyard::step {

struct Group {
  std::int64_t ranks = 1;
  std::int64_t ranks_per_node = 1;  // of this group, on one node or direct-link fabric

  friend bool operator==(const Group&, const Group&) = default;
};

// `stride`: distance of neighbouring ranks of the group, in ranks of the job.
[[nodiscard]] inline Group group_of(const facts::Job& job, std::int64_t ranks,
                                    std::int64_t stride) {
  // Ranks on one fabric of direct links count as ranks on one node: what is between them is alike.
  const std::int64_t node = job.machine.gpus.value_or(ranks);
  const std::int64_t on_node = std::max(node, job.machine.fabric_gpus.value_or(node)) / stride;
  return {ranks, std::clamp<std::int64_t>(on_node, 1, std::max<std::int64_t>(ranks, 1))};
}

struct Groups {
  Group tensor, context, data, pipeline;
  Group replicas;       // ranks that hold the same parameters: data and context together
  Group shards;         // those of them that share one copy of the states
  Group across_shards;  // those that hold the same shard (hybrid sharding)
  Group neighbours;     // two stages
  Group expert, expert_tensor;
  Group expert_replicas;  // ranks that hold the same experts
};

[[nodiscard]] inline Groups groups_of(const facts::Job& job) {
  const facts::ParallelKeys& p = job.parallel;
  const std::int64_t data = p.data.value_or(1);
  Groups groups;
  groups.tensor = group_of(job, p.tensor, 1);
  groups.context = group_of(job, p.context, p.tensor);
  groups.data = group_of(job, data, p.tensor * p.context);
  groups.replicas = group_of(job, data * p.context, p.tensor);
  const std::int64_t shards = p.shard_group.value_or(data * p.context);
  groups.shards = group_of(job, shards, p.tensor);
  groups.across_shards = group_of(job, data * p.context / shards, p.tensor * shards);
  const std::int64_t stage = p.tensor * p.context * data;
  groups.pipeline = group_of(job, p.pipeline, stage);
  groups.neighbours = group_of(job, std::min<std::int64_t>(p.pipeline, 2), stage);
  groups.expert_tensor = group_of(job, p.expert_tensor, 1);
  groups.expert = group_of(job, p.expert, p.expert_tensor);
  const std::int64_t apart = p.expert * p.expert_tensor;
  groups.expert_replicas = group_of(job, std::max<std::int64_t>(1, stage / apart), apart);
  return groups;
}

}  // namespace steelyard::step
