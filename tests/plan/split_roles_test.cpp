// Objectives with several models on ranks that share layers, planned: VRAM, RAM and pace follow.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <utility>

#include "plan/objective.h"
#include "plan/planning.h"
#include "plan/ranks.h"
#include "vram/vram.h"

namespace steelyard::plan {
namespace {

using facts::Objective;

struct Split {
  std::int64_t tensor = 1, pipeline = 1, context = 1;
  bool sequence = false;
};

facts::Job job_of(Objective objective, const Split& split, const char* framework = "pytorch") {
  facts::Job job = job_on_cards("a100-sxm-80gb", 8);
  job.framework = framework;
  job.model.config = config_of({.hidden = 512, .layers = 4, .heads = 8, .vocabulary = 8000});
  job.train.objective = objective;
  job.train.micro_batch = 2;
  job.train.gradient_accumulation = 4;
  job.train.sequence_length = 512;
  job.train.precision = facts::Precision::bf16_mixed;
  job.parallel.tensor = split.tensor;
  job.parallel.pipeline = split.pipeline;
  job.parallel.context = split.context;
  job.parallel.sequence_parallel = split.sequence;
  return job;
}

facts::Plan planned_roles(const facts::Job& job) {
  Request request = request_for(job);
  request.roles = value_of(own_catalog().roles_of(job, request.model, {}));
  return value_of(plan(request));
}

constexpr Objective kAll[] = {Objective::dpo,    Objective::orpo, Objective::kto,
                              Objective::reward, Objective::ppo,  Objective::grpo};

// More ranks that share layers never need more of each card.
TEST(SplitRoles, MoreTensorRanksNeedNoMore) {
  const std::pair<const char*, bool> kinds[] = {
      {"pytorch", false}, {"megatron", false}, {"megatron", true}};
  for (const Objective objective : kAll) {
    for (const auto& [framework, sequence] : kinds) {
      Bytes before;
      for (const std::int64_t tensor : {1, 2, 4}) {
        const Split split{.tensor = tensor, .sequence = sequence && tensor > 1};
        const facts::Plan plan = planned_roles(job_of(objective, split, framework));
        const Bytes peak = plan.vram.fullest.peak_allocated;
        if (before > Bytes()) {
          EXPECT_LE(peak, before) << framework << " " << facts::name_of(objective) << " on "
                                  << tensor << (sequence ? " with its sequence" : "");
        }
        EXPECT_TRUE(plan.pace.step.has_value());
        before = peak;
      }
    }
  }
}

TEST(SplitRoles, EveryObjectiveIsPlannedOnEveryLayout) {
  for (const Objective objective : kAll) {
    for (const Split& split :
         {Split{.pipeline = 2}, Split{.tensor = 2, .pipeline = 4, .sequence = true},
          Split{.context = 2}, Split{.tensor = 2, .pipeline = 2, .context = 2}}) {
      const facts::Plan plan = planned_roles(job_of(objective, split, "megatron"));
      EXPECT_EQ(plan.vram.ranks.size(), static_cast<std::size_t>(split.pipeline));
      EXPECT_TRUE(plan.pace.step.has_value()) << facts::name_of(objective);
      EXPECT_EQ(plan.pace.breakdown.bubble > Seconds(), split.pipeline > 1);
    }
  }
}

// Two updates of a policy are played of many: each meets its micro-batches as the first one did.
TEST(SplitRoles, RepeatedMicroBatchesGoAsThePlainExpansion) {
  for (const Objective objective : {Objective::dpo, Objective::ppo, Objective::grpo}) {
    for (const std::int64_t pipeline : {1, 2, 4}) {
      for (const std::int64_t micro_batches : {4, 8, 16}) {
        facts::Job job = job_of(objective, {.pipeline = pipeline});
        job.train.micro_batch = 1;
        job.train.gradient_accumulation = micro_batches;
        Request request = request_for(job);
        request.roles = value_of(own_catalog().roles_of(job, request.model, {}));
        const Ranks ranks = value_of(ranks_of(request));
        for (const step::RankProgram& rank : ranks.programs) {
          vram::Request wanted;
          wanted.program = &rank.program;
          wanted.device = &request.constants.device_memory;
          const vram::Answer compact = vram::replay(wanted);
          wanted.expand_all = true;
          const vram::Answer plain = vram::replay(wanted);
          SCOPED_TRACE(fmt::format("{} {} {}", facts::name_of(objective), pipeline, micro_batches));
          EXPECT_EQ(compact.memory.peak_allocated, plain.memory.peak_allocated);
          EXPECT_EQ(compact.memory.peak_reserved, plain.memory.peak_reserved);
          EXPECT_EQ(compact.memory.steady_allocated, plain.memory.steady_allocated);
        }
      }
    }
  }
}

// Ranks of a group hold parts of what waits: a node holds one copy, whatever shares it.
TEST(SplitRoles, WaitingReferencesAreHeldOncePerGroup) {
  const auto waiting = [](std::int64_t tensor) {
    facts::Job job = job_of(Objective::dpo, {.tensor = tensor}, "megatron");
    job.offload.pin_memory = false;
    facts::RoleModel& reference = job.model.roles.emplace_back();
    reference.role = facts::Role::reference;
    reference.offload = facts::OffloadTo::cpu;
    return planned_roles(job).ram.phases[2][facts::RamCategory::parameters];
  };
  const Bytes whole = waiting(1), divided = waiting(4);
  EXPECT_GT(whole, 3 * divided);  // 8 copies, against 2 and the norms of each rank
  EXPECT_LE(whole, 4 * divided);
}

// Experts over ranks, in the policy and in its reference.
TEST(SplitRoles, ExpertsAreSpread) {
  const auto peak = [](std::int64_t expert) {
    facts::Job job = job_of(Objective::dpo, {}, "megatron");
    facts::Value config = config_of({.hidden = 256, .layers = 4, .heads = 4, .vocabulary = 2000});
    config.set("model_type", "mixtral");
    config.set("num_local_experts", 8);
    config.set("num_experts_per_tok", 2);
    job.model.config = config;
    job.parallel.expert = expert;
    return planned_roles(job).vram.fullest.by_category[facts::VramCategory::parameters];
  };
  const Bytes all = peak(1), half = peak(2), eighth = peak(8);
  EXPECT_GT(all, half);
  EXPECT_GT(half, eighth);
}

// A reference that many stages answer costs a pass through them once for all micro-batches; tokens
// that are written cost one each.
TEST(SplitRoles, PipelinesWaitForEachToken) {
  const auto bubble = [](Objective objective, std::int64_t pipeline) {
    return planned_roles(job_of(objective, {.pipeline = pipeline}, "megatron"))
        .pace.breakdown.bubble;
  };
  EXPECT_GT(bubble(Objective::grpo, 4), 3.0 * bubble(Objective::dpo, 4));
  EXPECT_GT(bubble(Objective::dpo, 4), bubble(Objective::dpo, 2));
}

}  // namespace
}  // namespace steelyard::plan
