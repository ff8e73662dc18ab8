#include "plan/floor_key.h"

#include <algorithm>

namespace steelyard::plan {

using facts::Job;
using facts::ParallelKeys;
using facts::Sharding;

std::int64_t shard_group_of(const Job& layout, std::int64_t data) {
  const ParallelKeys& p = layout.parallel;
  const std::int64_t alike = data * p.context;
  if (p.shard_group) return *p.shard_group;
  return p.sharding == Sharding::hsdp ? std::min(alike, layout.machine.gpus.value_or(1)) : alike;
}

bool reduces_late(const ParallelKeys& p) {
  switch (p.sharding) {
    case Sharding::fsdp:
    case Sharding::fsdp1:
    case Sharding::hsdp:
    case Sharding::shard_grad_op: return p.pipeline > 1;
    default: return false;
  }
}

Key key_of(const Job& layout, std::int64_t data, bool accumulates) {
  const ParallelKeys& p = layout.parallel;
  const facts::OffloadKeys& offload = layout.offload;
  const facts::RecomputeKeys& recompute = layout.train.recompute;
  const bool own_group = p.sharding == Sharding::hsdp || p.shard_group;
  Key key{};
  key[kTensor] = p.tensor;
  key[kContext] = p.context;
  key[kExpert] = p.expert;
  key[kExpertTensor] = p.expert_tensor;
  key[kSequenceParallel] = p.sequence_parallel ? 1 : 0;
  key[kSharding] = number_of(p.sharding);
  key[kMicroBatch] = layout.train.micro_batch.value_or(1);
  key[kRecompute] = number_of(recompute.mode);
  key[kRecomputeEvery] = recompute.every.value_or(0);
  key[kRecomputeLayers] = recompute.layers.value_or(0);
  key[kPrecision] = number_of(layout.train.precision);
  key[kParameters] = number_of(offload.parameters);
  key[kOptimizer] = number_of(offload.optimizer);
  key[kGradients] = number_of(offload.gradients);
  key[kActivations] = number_of(offload.activations);
  key[kAccumulates] = accumulates ? 1 : 0;
  key[kReplicated] = data > 1 ? 1 : 0;
  key[kShardGroup] = own_group ? shard_group_of(layout, data) : 0;
  key[kReducesLate] = reduces_late(p) ? 1 : 0;
  return key;
}

}  // namespace steelyard::plan
