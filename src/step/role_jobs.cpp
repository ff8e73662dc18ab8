#include "step/role_jobs.h"

#include "base/quantity.h"

namespace steelyard::step {

using facts::Precision;
using facts::Sharding;

namespace {

// DeepSpeed's engine holds a model without an optimizer in the short type itself.
Precision own_type(Precision precision) {
  if (precision == Precision::bf16_mixed) return Precision::bf16;
  return precision == Precision::fp16_mixed ? Precision::fp16 : precision;
}

}  // namespace

bool shards_parameters(Sharding sharding) {
  return sharding != Sharding::none && sharding != Sharding::zero1 && sharding != Sharding::zero2;
}

// How a model that is only asked is held: without optimizer, whole unless parameters are sharded.
facts::Job asked_job(const facts::Job& job, bool as_policy, bool waits) {
  facts::Job asked = job;
  asked.model.companions.clear();
  asked.offload = {};
  if (!as_policy) {
    asked.train.method = facts::Method::full;
    asked.train.lora = {};
    asked.train.base_quantization = facts::BaseQuantization::none;
    asked.train.unquantized.reset();
    asked.train.trainable.clear();
    asked.train.frozen.clear();
  }
  const bool deepspeed =
      job.parallel.sharding == Sharding::zero1 || job.parallel.sharding == Sharding::zero2;
  if (deepspeed) asked.train.precision = own_type(job.train.precision);
  if (!shards_parameters(job.parallel.sharding)) asked.parallel.sharding = Sharding::none;
  if (waits && asked.parallel.sharding == Sharding::zero3) {
    asked.offload.parameters = facts::OffloadTo::cpu;  // layer by layer, as they are gathered
  }
  return asked;
}

// Every GPU writes by itself: what is sharded is gathered for the whole generation
// (trl/models/utils.py, unwrap_model_for_generation: GatheredParameters, summon_full_params).
facts::Job generation_job(const facts::Job& job) {
  facts::Job whole = job;
  whole.model.companions.clear();
  whole.parallel.sharding = Sharding::none;
  whole.offload = {};
  // A token is no sequence to spread: ranks that shared one write samples of their own.
  whole.parallel.sequence_parallel = false;
  whole.parallel.data = checked_multiply(job.parallel.data.value_or(1), job.parallel.context);
  whole.parallel.context = 1;
  if (shards_parameters(job.parallel.sharding)) {
    whole.train.precision = own_type(job.train.precision);
  }
  return whole;
}

facts::Job critic_job(const facts::Job& job) {
  facts::Job critic = job;
  critic.model.companions.clear();
  critic.train.method = facts::Method::full;
  critic.train.lora = {};
  critic.train.base_quantization = facts::BaseQuantization::none;
  critic.train.unquantized.reset();
  critic.train.trainable.clear();
  critic.train.frozen.clear();
  return critic;
}

}  // namespace steelyard::step
