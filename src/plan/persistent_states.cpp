#include "plan/persistent_states.h"

#include <string>
#include <string_view>

namespace steelyard::plan {
namespace {

using facts::DType;
using facts::Origin;
using facts::Precision;
using facts::Sharding;
using facts::ShortPrecision;

bool is_short(Precision precision) {
  return precision != Precision::fp32 && precision != Precision::tf32;
}

bool is_half(Precision precision) {
  return precision == Precision::fp16 || precision == Precision::fp16_mixed;
}

template <class T>
void fill(facts::Job& job, std::optional<T>& field, const char* key, T value) {
  if (field) return;
  field = value;
  job.origins[key] = {Origin::fallback, {}};
}

}  // namespace

void resolve_states(facts::Job& job, const facts::FrameworkProfile& framework) {
  const auto word = framework.operators.find("states");
  if (word == framework.operators.end() || word->second != "persistent_buffers") return;
  const Sharding sharding = job.parallel.sharding;
  const bool offered = sharding == Sharding::none || sharding == Sharding::zero1;
  if (job.megatron || !offered || !is_short(job.train.precision)) return;
  facts::MegatronKeys keys;
  keys.distributed_optimizer = sharding == Sharding::zero1;
  const bool half = is_half(job.train.precision);
  keys.main_gradients = half ? DType::fp16 : DType::fp32;
  // Products accumulate into a buffer of fp32 alone.
  keys.fused_weight_gradients = !half;
  fill(job, job.parallel.reduce_precision, "parallel.reduce_precision",
       half ? ShortPrecision::fp16 : ShortPrecision::fp32);
  fill(job, job.train.optimizer.master_weights, "train.optimizer.master_weights", true);
  if (!job.origins.contains("checkpoint.method")) {
    job.checkpoint.method = facts::CheckpointMethod::sharded_sync;
    job.origins["checkpoint.method"] = {Origin::fallback, {}};
  }
  job.megatron = std::move(keys);
}

}  // namespace steelyard::plan
