#include "step/layout.h"
#include "step/groups.h"

#include <algorithm>
#include <string>

namespace steelyard::step {

namespace {

using facts::DType;
using facts::OptimizerName;
using facts::Precision;
using facts::Sharding;

DType type_of(facts::ShortPrecision precision) {
  switch (precision) {
    case facts::ShortPrecision::fp32: return DType::fp32;
    case facts::ShortPrecision::bf16: return DType::bf16;
    case facts::ShortPrecision::fp16: return DType::fp16;
  }
  return DType::fp32;
}

Error not_built(std::string key, std::string found, std::string accepted) {
  return {ErrorCode::not_supported,
          std::move(key),
          std::move(found),
          std::move(accepted),
          "this version does not know its rules yet",
          "",
          {}};
}

struct Short {
  DType type = DType::fp32;
  bool mixed = false;
  bool tf32 = false;
};

Result<Short> short_of(Precision precision, bool held_short) {
  switch (precision) {
    case Precision::fp32: return Short{DType::fp32, false, false};
    case Precision::tf32: return Short{DType::fp32, false, true};
    // Megatron-LM holds short parameters whatever is called mixed (transformer/module.py,
    // Float16Module), and its optimizer the masters.
    case Precision::fp16_mixed: return Short{DType::fp16, !held_short, false};
    case Precision::bf16_mixed: return Short{DType::bf16, !held_short, false};
    case Precision::bf16: return Short{DType::bf16, false, false};
    case Precision::fp16: return Short{DType::fp16, false, false};
    // Products alone are in fp8: everything else is as in bf16.
    case Precision::fp8_mixed:
    case Precision::mxfp8_mixed:
    case Precision::nvfp4_mixed: return Short{DType::bf16, !held_short, false};
  }
  return fail(not_built("train.precision", "no known word", "a precision of the job format"));
}

bool is_zero(Sharding sharding) {
  return sharding == Sharding::zero1 || sharding == Sharding::zero2 || sharding == Sharding::zero3;
}

void set_types(const facts::Job& job, const Short& precision, Layout& layout) {
  const Sharding sharding = job.parallel.sharding;
  layout.arithmetic.compute = precision.type;
  layout.arithmetic.tf32 = precision.tf32;
  if (precision.mixed && is_zero(sharding)) {
    // DeepSpeed's bf16 and fp16: short parameters, the optimizer keeps and updates an fp32 master.
    layout.parameter = layout.used = layout.gradient = precision.type;
    layout.master = true;
  } else if (precision.mixed && layout.gathers) {
    // FSDP mixed precision: fp32 shards, gathered in the short type.
    layout.used = precision.type;
  } else if (precision.mixed) {
    layout.arithmetic.autocast = true;
  } else {
    layout.parameter = layout.used = layout.gradient = precision.type;
    layout.master =
        job.train.optimizer.master_weights.value_or(false) && precision.type != DType::fp32;
  }
  layout.stepped = layout.master ? DType::fp32 : layout.parameter;
  layout.reduce =
      job.parallel.reduce_precision ? type_of(*job.parallel.reduce_precision) : layout.gradient;
  // FSDP keeps the reduced shard in the parameter's own type.
  if (layout.gathers && !is_zero(sharding)) layout.gradient = layout.parameter;
  // FSDP1 "is switching to use NO_SHARD" where one rank is alone (torch/distributed/fsdp/
  // _init_utils.py, _init_core_state): nothing is gathered where nothing is cast either.
  const bool stays = job.offload.parameters == facts::OffloadTo::none &&
                     job.offload.gradients == facts::OffloadTo::none;
  if (sharding == Sharding::fsdp1 && layout.group == 1 && !precision.mixed && stays) {
    layout.gathers = false;
  }
}

void set_shards(const facts::Job& job, Layout& layout) {
  layout.expert_replicas = groups_of(job).expert_replicas.ranks;
  // Context-parallel ranks hold the same parameters: their states are sharded alike.
  layout.data = checked_multiply(job.parallel.data.value_or(1), job.parallel.context);
  const std::int64_t group = job.parallel.shard_group.value_or(layout.data);
  layout.group = group;
  switch (job.parallel.sharding) {
    case Sharding::none: break;
    case Sharding::zero1: layout.optimizer_shards = group; break;
    case Sharding::zero2: layout.optimizer_shards = layout.gradient_shards = group; break;
    case Sharding::zero3:
    case Sharding::fsdp:
    case Sharding::fsdp1:
    case Sharding::hsdp:
    case Sharding::shard_grad_op:
      layout.optimizer_shards = layout.gradient_shards = layout.parameter_shards = group;
      layout.gathers = true;
      break;
  }
  layout.reshards =
      job.parallel.sharding != Sharding::shard_grad_op && job.parallel.reshard_after_forward;
  layout.flat_parameters = job.parallel.sharding == Sharding::fsdp1;
  layout.gradients_outlive_step = layout.flat_parameters;
  layout.flat_buckets = is_zero(job.parallel.sharding);
}

// Reads and writes during the step, as passes over the parameters. A fused kernel reads parameter,
// gradient and states and writes parameter and states; foreach does the same in a kernel per
// arithmetic operation: Adam's nine make about 20 passes, 7 of them per state.
double passes_of(std::int64_t states, bool fused) {
  const auto count = static_cast<double>(states);
  return fused ? 3.0 + 2.0 * count : 6.0 + 7.0 * count;
}

// States in codes of a few bits, stepped by a kernel that widens them block by block
// (bitsandbytes; torchao/optim/adam.py, compiled per parameter).
void set_blocks(OptimizerLayout& o, std::int64_t code_bits, std::int64_t block) {
  o.in_blocks = true;
  o.code_bits = code_bits;
  o.block = block;
  o.fused = true;
  o.loop = false;
}

Result<OptimizerLayout> optimizer_of(const facts::Job& job, DType stepped) {
  const facts::OptimizerKeys& keys = job.train.optimizer;
  OptimizerLayout o;
  o.state = keys.state_precision ? type_of(*keys.state_precision) : stepped;
  o.fused = keys.fused.value_or(false);
  const bool foreach_step = keys.foreach.value_or(!o.fused);
  o.loop = !o.fused && !foreach_step;
  switch (keys.name) {
    case OptimizerName::paged_adamw: o.paged = true; [[fallthrough]];
    case OptimizerName::adamw:
    case OptimizerName::adam:
    case OptimizerName::lamb: o.step_copies = o.fused ? 0 : (o.loop ? 2 : 1); break;
    case OptimizerName::adamw4bit: set_blocks(o, 4, 128); break;
    case OptimizerName::paged_adamw8bit: o.paged = true; [[fallthrough]];
    case OptimizerName::adamw_fp8:  // torchao: 8 bits and as many scales as bitsandbytes' integers
    case OptimizerName::adamw8bit: set_blocks(o, 8, 256); break;
    case OptimizerName::adafactor:
      o.states = 0;
      o.factored = true;
      o.loop = !foreach_step;
      o.step_copies = 1;  // the update tensor
      break;
    case OptimizerName::lion:
      o.states = 1;
      o.step_copies = o.fused ? 0 : 1;
      break;
    case OptimizerName::muon:
      o.states = 1;
      o.matrices_only = true;
      o.loop = true;
      o.step_copies = 3;  // Newton-Schulz: the matrix and two products of it, one at a time
      break;
    case OptimizerName::rmsprop:
      o.states = 1;
      o.step_copies = o.fused ? 0 : 1;
      break;
    case OptimizerName::sgd: o.states = 0; break;
    case OptimizerName::sgd_momentum: o.states = 1; break;
  }
  // Muon's Newton-Schulz products are arithmetic that the step does not count yet.
  o.passes = passes_of(o.states, o.fused);
  return o;
}

// The frozen base, and adapters beside it. The arithmetic of a quantized base is the short type's.
void set_adapters(const facts::Job& job, const AdapterHabits& habits, Layout& layout) {
  const facts::TrainKeys& train = job.train;
  if (train.method == facts::Method::full) return;
  layout.quantization = train.base_quantization;
  layout.nested_statistics =
      train.base_quantization == facts::BaseQuantization::nf4_dq || habits.nested_statistics;
  layout.quantized_subclass = habits.tensor_subclass;
  layout.frozen_norm = layout.parameter;
  const auto given = job.origins.find("train.optimizer.state_precision");
  const bool explicit_state =
      given != job.origins.end() && given->second.origin == facts::Origin::job;
  // PyTorch's optimizers keep states in the parameter's type: states that are said to be short are
  // those of short adapters.
  if (explicit_state && !layout.master) {
    layout.adapter = type_of(*train.optimizer.state_precision);
  } else {
    layout.adapter = habits.promotes ? DType::fp32 : layout.parameter;
    // bitsandbytes' 32-bit states are wide whatever they step (plan/resolve.cpp).
    const bool follows = train.optimizer.name != OptimizerName::paged_adamw;
    if (!layout.master && follows) layout.optimizer.state = layout.stepped;
  }
  if (train.unquantized) {
    const DType rest = type_of(*train.unquantized);
    const bool sharded = layout.parameter_shards > 1;
    if (!habits.casts_norms_only) {
      layout.parameter = layout.used = rest;
    }
    if (!habits.casts_norms_only || !sharded) layout.frozen_norm = rest;
  }
  if (layout.arithmetic.autocast || habits.autocast) {
    layout.arithmetic.autocast = layout.arithmetic.compute != DType::fp32;
    layout.arithmetic.ambient = layout.parameter;
  }
}

// Transformer Engine's FusedAdam holds the master weights, of bf16 parameters only the 16 bits that
// these lack (store_param_remainders), and reads the buffer of gradients as it is.
bool engine_holds_masters(const facts::MegatronKeys& keys) {
  const auto word = keys.operators.find("master_weights");
  return word != keys.operators.end() && word->second == "engine";
}

// --use-precision-aware-optimizer (Transformer Engine: optimizers/fused_adam.py). States in another
// type than fp32 are widened for the step, all of them at once, unless the kernel reads both in
// bf16.
void set_precision_aware(const facts::MegatronKeys& keys, Layout& layout) {
  OptimizerLayout& optimizer = layout.optimizer;
  if (optimizer.states != 2) return;
  optimizer.state = keys.first_moment;
  if (keys.second_moment != keys.first_moment) optimizer.second_state = keys.second_moment;
  const bool in_kernel = keys.first_moment == DType::bf16 && keys.second_moment == DType::bf16;
  for (const DType moment : {keys.first_moment, keys.second_moment}) {
    if (moment != DType::fp32 && !in_kernel) ++optimizer.step_copies;
  }
  if (!engine_holds_masters(keys)) return;
  const bool remainders = keys.main_parameters == DType::fp32 && layout.parameter == DType::bf16;
  layout.master_type = remainders ? DType::bf16 : keys.main_parameters;
}

}  // namespace

// Megatron-LM: gradients are added into a buffer that stays, usually in fp32; the distributed
// optimizer cuts shards out of it and out of a buffer of parameters.
void set_megatron(const facts::MegatronKeys& keys, Layout& layout) {
  if (keys.operators.contains("gradient_shards")) {  // Megatron-FSDP: main_grad_buffer's type
    layout.gradient = layout.reduce = keys.main_gradients;
    layout.optimizer.counts_on_device = false;
  }
  if (!keys.gradient_buffer) return;
  layout.flat_buckets = false;
  layout.gradient_buffer = true;
  layout.parameter_buffer = keys.distributed_optimizer;
  layout.gradient = layout.reduce = keys.main_gradients;
  layout.buffers.padded = keys.distributed_optimizer;
  if (keys.distributed_optimizer && keys.optimizer_instances > 1) {
    layout.optimizer_shards = layout.group =
        std::max<std::int64_t>(1, layout.group / keys.optimizer_instances);
    layout.expert_replicas =
        std::max<std::int64_t>(1, layout.expert_replicas / keys.optimizer_instances);
  }
  layout.buffers.ranks = layout.group;
  layout.buffers.pads_for_high_bandwidth = keys.pads_for_high_bandwidth;
  layout.reduces_beside = keys.overlaps_reduction;
  if (keys.overlaps_reduction) {
    // distributed_data_parallel.py: max(40e6, 1e6 x ranks) parameters unless said otherwise.
    const std::int64_t usual = std::max<std::int64_t>(40'000'000, 1'000'000 * layout.data);
    layout.buffers.bucket_numel = keys.bucket_elements.value_or(usual);
  }
  layout.gradients_outlive_step =
      layout.master && layout.stepped != layout.gradient && !engine_holds_masters(keys);
  set_precision_aware(keys, layout);
  layout.optimizer.counts_on_device = false;  // FusedAdam counts per group, on the host
}

Result<Layout> layout_of(const facts::Job& job, const AdapterHabits& habits, const Fp8& fp8) {
  Layout layout;
  layout.arithmetic.fp8 = fp8;
  set_shards(job, layout);
  STEELYARD_TRY(precision, short_of(job.train.precision, job.megatron.has_value()));
  set_types(job, precision, layout);
  STEELYARD_TRY(optimizer, optimizer_of(job, layout.stepped));
  layout.optimizer = optimizer;
  if (job.megatron) set_megatron(*job.megatron, layout);
  set_adapters(job, habits, layout);
  if (habits.short_autocast && !layout.arithmetic.autocast && !layout.gathers) {
    layout.arithmetic.autocast = layout.arithmetic.compute != DType::fp32;
    layout.arithmetic.ambient = layout.parameter;
  }
  layout.on_host = host_states(job);
  if (layout.on_host.gradients) layout.gradients_outlive_step = false;
  return layout;
}

void hold_denominator(const facts::OptimizerKeys& keys, OptimizerLayout& optimizer) {
  const bool adam = keys.name == OptimizerName::adam || keys.name == OptimizerName::adamw;
  if (adam && !optimizer.fused && !optimizer.loop) optimizer.step_copies = 2;
}

void make_functional(const facts::OptimizerKeys& keys, OptimizerLayout& optimizer) {
  if (keys.name != OptimizerName::lamb || optimizer.fused) return;
  optimizer.loop = optimizer.functional = true;
}

}  // namespace steelyard::step
