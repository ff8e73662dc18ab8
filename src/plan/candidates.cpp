// Candidates on the GPUs' side; those of the host are in host_candidates.cpp.
#include "plan/candidates.h"

#include <fmt/format.h>

#include <algorithm>

namespace steelyard::plan {

namespace {

using facts::AdviceEffort;
using facts::Job;
using facts::OffloadTo;
using facts::Precision;
using facts::RecomputeMode;
using facts::Sharding;

// A change below this share of a step is not worth a plan (advice.cpp: nor a line).
constexpr double kNoticed = 0.02;

void set_sharding(Job& job, Sharding sharding) {
  job.parallel.sharding = sharding;
  job.parallel.shard_group.reset();
}

// `leaves`: the least share of the states that a rank keeps.
Candidate sharded(Sharding sharding, const char* what, Ratio leaves = Ratio(1.0)) {
  Candidate made{what,
                 {{"parallel.sharding", std::string(facts::name_of(sharding))}},
                 [sharding](Job& job) { set_sharding(job, sharding); }};
  made.remains = {.parameters = leaves, .gradients = leaves, .optimizer = leaves};
  return made;
}

// Halves or doubles the micro-batch and keeps the global batch.
Candidate micro_batch(const Job& resolved, std::int64_t micro, const char* what) {
  const std::int64_t global = *resolved.train.global_batch;
  Candidate made{what,
                 {{"train.micro_batch", fmt::format("{}", micro)},
                  {"train.global_batch", fmt::format("{}", global)}},
                 [micro, global](Job& job) {
                   job.train.micro_batch = micro;
                   job.train.global_batch = global;
                   job.train.gradient_accumulation.reset();
                 }};
  const Ratio share(static_cast<double>(micro) / static_cast<double>(*resolved.train.micro_batch));
  made.remains = {.activations = share, .temporaries = Ratio(0.0), .batch = share};
  return made;
}

Candidate recompute(RecomputeMode mode, const char* what) {
  Candidate made{what, {{"train.recompute", std::string(facts::name_of(mode))}}, [mode](Job& job) {
                   job.train.recompute = {};
                   job.train.recompute.mode = mode;
                 }};
  made.remains = {.activations = Ratio(0.0), .temporaries = Ratio(0.0)};
  return made;
}

Candidate precision(Precision type, const char* what) {
  Candidate made{what,
                 {{"train.precision", std::string(facts::name_of(type))}},
                 [type](Job& job) { job.train.precision = type; },
                 AdviceEffort::care};
  made.remains = {.activations = Ratio(0.4), .temporaries = Ratio(0.4)};
  return made;
}

Candidate fused_optimizer() {
  Candidate made{"use the fused optimizer, which needs no temporary copy of the parameters",
                 {{"train.optimizer.fused", "true"}},
                 [](Job& job) {
                   job.train.optimizer.fused = true;
                   job.train.optimizer.foreach.reset();
                 }};
  made.remains = {.temporaries = Ratio(0.0)};
  return made;
}

bool may_fuse(const Job& job) {
  return !job.train.optimizer.fused.value_or(false) &&
         job.train.optimizer.name == facts::OptimizerName::adamw;
}

bool is_fsdp(Sharding sharding) {
  return sharding == Sharding::fsdp || sharding == Sharding::fsdp1 || sharding == Sharding::hsdp;
}

bool is_wide(Precision type) {
  return type == Precision::fp32 || type == Precision::tf32;
}

// Halves, where tensor units of that type exist (compute capability 8: bf16; 7: fp16).
std::optional<Candidate> short_precision(const facts::Plan& planned) {
  const double capability = planned.machine.gpu.compute_capability.value_or(8.0);
  if (!is_wide(planned.job.train.precision) || capability < 7.0) return std::nullopt;
  const bool bf16 = capability >= 8.0;
  return precision(
      bf16 ? Precision::bf16_mixed : Precision::fp16_mixed,
      bf16 ? "compute in bf16 (mixed precision)" : "compute in fp16 (mixed precision)");
}

void add_sharding(const Job& job, std::vector<Candidate>& list) {
  if (*job.parallel.data <= 1) return;
  const Ratio part(1.0 / static_cast<double>(*job.parallel.data));
  const auto add = [&](Sharding sharding, const char* what) {
    list.push_back(sharded(sharding, what, part));
  };
  switch (job.parallel.sharding) {
    case Sharding::none:
      add(Sharding::fsdp, "shard parameters, gradients and optimizer (FSDP)");
      return;
    case Sharding::zero1:
      add(Sharding::zero2, "shard the gradients too (ZeRO-2)");
      add(Sharding::zero3, "shard the parameters too (ZeRO-3)");
      return;
    case Sharding::zero2: add(Sharding::zero3, "shard the parameters too (ZeRO-3)"); return;
    case Sharding::hsdp: add(Sharding::fsdp, "shard over all ranks, not in each node"); return;
    case Sharding::shard_grad_op: add(Sharding::fsdp, "shard the parameters too (FSDP)"); return;
    default: return;
  }
}

// To the host: what the engine of the job's sharding moves together (step/offload_rules.cpp).
void add_offload(const Job& job, std::vector<Candidate>& list) {
  const bool parameters_too =
      is_fsdp(job.parallel.sharding) || job.parallel.sharding == Sharding::shard_grad_op;
  const auto add = [&](bool parameters, const char* what) {
    Candidate made{what, {}, {}};
    if (parameters) made.set.emplace_back("offload.parameters", "cpu");
    made.set.emplace_back("offload.optimizer", "cpu");
    made.apply = [parameters](Job& changed) {
      if (parameters) changed.offload.parameters = OffloadTo::cpu;
      changed.offload.optimizer = OffloadTo::cpu;
    };
    made.remains = {.gradients = Ratio(0.0), .optimizer = Ratio(0.0), .temporaries = Ratio(0.0)};
    if (parameters) made.remains.parameters = Ratio(0.0);
    list.push_back(std::move(made));
  };
  if (job.offload.optimizer == OffloadTo::none && job.offload.parameters == OffloadTo::none) {
    add(parameters_too, parameters_too ? "keep parameters, gradients and optimizer on the host"
                                       : "keep the optimizer on the host");
  }
  if (job.parallel.sharding == Sharding::zero3 && job.offload.parameters == OffloadTo::none) {
    add(true, "keep parameters and optimizer on the host");
  }
}

}  // namespace

Remains Remains::with(const Remains& more) const {
  const auto product = [](Ratio a, Ratio b) { return Ratio(a.value() * b.value()); };
  return {product(parameters, more.parameters),   product(gradients, more.gradients),
          product(optimizer, more.optimizer),     product(activations, more.activations),
          product(temporaries, more.temporaries), product(batch, more.batch)};
}

// What the allocator holds beyond its tensors may go altogether.
Bytes Remains::of(const facts::VramBytes& held) const {
  using facts::VramCategory;
  return held[VramCategory::parameters] * parameters + held[VramCategory::gradients] * gradients +
         held[VramCategory::optimizer] * optimizer + held[VramCategory::activations] * activations +
         held[VramCategory::temporaries] * temporaries + held[VramCategory::batch] * batch +
         held[VramCategory::runtime];
}

std::vector<Candidate> that_save_vram(const facts::Plan& planned) {
  const Job& resolved = planned.job;
  const facts::TrainKeys& train = resolved.train;
  std::vector<Candidate> list;
  if (facts::writes_scores(train.attention)) {
    Candidate made{"use flash attention", {{"train.attention", "flash"}}, [](Job& job) {
                     job.train.attention = facts::Attention::flash;
                   }};
    made.remains = {.activations = Ratio(0.0), .temporaries = Ratio(0.0)};
    list.push_back(std::move(made));
  }
  // The copy exists in the optimizer's step alone.
  const bool stepping = planned.vram.fullest.peak_at.phase == "optimizer";
  if (may_fuse(resolved) && stepping) list.push_back(fused_optimizer());
  add_sharding(resolved, list);
  const bool pairs =
      train.objective == facts::Objective::dpo || train.objective == facts::Objective::kto;
  if (pairs && train.reference == facts::ReferenceUse::live) {
    Candidate made{"ask the reference once, before the run",
                   {{"train.reference", "precomputed"}},
                   [](Job& job) { job.train.reference = facts::ReferenceUse::precomputed; }};
    made.remains = {.parameters = Ratio(0.0), .activations = Ratio(0.0), .temporaries = Ratio(0.0)};
    list.push_back(std::move(made));
  }
  if (train.recompute.mode == RecomputeMode::none) {
    list.push_back(recompute(RecomputeMode::full, "recompute activations in the backward pass"));
  }
  if (*train.micro_batch > 1) {
    list.push_back(
        micro_batch(resolved, *train.micro_batch / 2, "halve the micro-batch and accumulate more"));
    if (*train.micro_batch > 2) {
      list.push_back(micro_batch(resolved, 1, "micro-batches of one sample, accumulated"));
    }
  }
  if (auto narrower = short_precision(planned)) list.push_back(std::move(*narrower));
  if (train.optimizer.name == facts::OptimizerName::adamw &&
      resolved.parallel.sharding == Sharding::none) {
    Candidate made{"keep optimizer states in 8 bits",
                   {{"train.optimizer", "adamw8bit"}},
                   [](Job& job) {
                     job.train.optimizer = {};
                     job.train.optimizer.name = facts::OptimizerName::adamw8bit;
                   },
                   AdviceEffort::care};
    made.remains = {.optimizer = Ratio(0.2), .temporaries = Ratio(0.0)};
    list.push_back(std::move(made));
  }
  add_offload(resolved, list);
  return list;
}

// The reverse: memory that is idle for time. What a part of the step can give at most is known from
// the plan; where that is nothing, nothing is planned.
std::vector<Candidate> that_gain_speed(const facts::Plan& planned) {
  std::vector<Candidate> list;
  const Job& job = planned.job;
  const facts::PaceBreakdown& parts = planned.pace.breakdown;
  const auto noticed = [&](Seconds part) {
    return !planned.pace.step || part.value() > kNoticed * planned.pace.step->value();
  };
  if (job.train.recompute.mode == RecomputeMode::full) {
    list.push_back(recompute(RecomputeMode::none, "stop recomputing: the activations have room"));
    list.push_back(recompute(RecomputeMode::selective, "recompute attention alone"));
  }
  if (*job.train.gradient_accumulation % 2 == 0) {
    list.push_back(
        micro_batch(job, *job.train.micro_batch * 2, "double the micro-batch and accumulate less"));
  }
  if (may_fuse(job) && noticed(parts.optimizer)) list.push_back(fused_optimizer());
  if (auto narrower = short_precision(planned)) list.push_back(std::move(*narrower));
  const bool on_host = job.offload.parameters != OffloadTo::none ||
                       job.offload.optimizer != OffloadTo::none ||
                       job.offload.gradients != OffloadTo::none;
  if (on_host && noticed(parts.offload + parts.optimizer)) {
    list.push_back({"keep all states on the GPUs: they have room",
                    {{"offload.parameters", "none"},
                     {"offload.optimizer", "none"},
                     {"offload.gradients", "none"}},
                    [](Job& changed) {
                      changed.offload.parameters = OffloadTo::none;
                      changed.offload.optimizer = OffloadTo::none;
                      changed.offload.gradients = OffloadTo::none;
                    }});
  }
  // Each rank would hold what its group holds now.
  const std::int64_t group = job.parallel.shard_group.value_or(1);
  const auto whole = [&](Bytes held) { return held.real() * static_cast<double>(group); };
  const facts::VramBytes& held = planned.vram.fullest.by_category;
  const double capacity =
      planned.vram.capacity ? planned.vram.capacity->real() : whole(Bytes(1)) * 1e18;
  const bool room = whole(held[facts::VramCategory::parameters]) < capacity;
  if (group > 1 && room && noticed(parts.exposed_communication)) {
    if (job.parallel.sharding == Sharding::zero3) {
      list.push_back(sharded(Sharding::zero2, "keep the parameters whole on each GPU (ZeRO-2)"));
    } else if (is_fsdp(job.parallel.sharding)) {
      list.push_back(sharded(Sharding::shard_grad_op,
                             "keep the parameters whole between forward and backward"));
    }
  }
  return list;
}

}  // namespace steelyard::plan
