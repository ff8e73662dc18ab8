// Preference and reinforcement learning, planned: what each model adds, and what is refused.
#include "plan/objective.h"

#include <gtest/gtest.h>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::Objective;
using facts::Role;

facts::Job job_of(Objective objective) {
  facts::Job job = job_on_cards("a100-sxm-80gb", 1);
  job.framework = "transformers";
  job.model.config = config_of({});
  job.train.objective = objective;
  job.train.micro_batch = 2;
  job.train.sequence_length = 512;
  return job;
}

facts::RoleModel& add(facts::Job& job, Role role) {
  facts::RoleModel& model = job.model.roles.emplace_back();
  model.role = role;
  return model;
}

// As cli does: a role without a configuration is as the model.
facts::Plan planned_roles(const facts::Job& job) {
  Request request = request_for(job);
  request.roles = value_of(own_catalog().roles_of(job, request.model, {}));
  return value_of(plan(request));
}

Bytes parameters(const facts::Plan& plan) {
  return plan.vram.fullest.by_category[facts::VramCategory::parameters];
}

std::string refused(const facts::Job& job) {
  Request request = request_for(job);
  const auto answer = plan(request);
  EXPECT_FALSE(answer);
  return answer ? "" : answer.error().subject;
}

// A reference more is held in fp32, whole; a precomputed one not at all.
TEST(Objective, ReferenceIsHeldWhereItIsAsked) {
  facts::Job job = job_of(Objective::dpo);
  const facts::Plan live = planned_roles(job);
  job.train.reference = facts::ReferenceUse::precomputed;
  const facts::Plan precomputed = planned_roles(job);
  const Bytes weights = Bytes(4) * live.model.parameters.value();
  const Bytes more = parameters(live) - parameters(precomputed);
  EXPECT_GE(more, weights);
  EXPECT_LT(more, weights * Ratio(1.6));  // autocast's casts beside them
  EXPECT_EQ(live.model.parameters, precomputed.model.parameters);
  EXPECT_GT(*live.pace.step, *precomputed.pace.step);
  const auto loading = [](const facts::Plan& plan) {
    return plan.ram
        .phases[static_cast<std::size_t>(facts::RamPhase::load)][facts::RamCategory::model_load];
  };
  EXPECT_EQ(loading(live), 2 * loading(precomputed));
}

TEST(Objective, AdaptersAreTheirOwnReference) {
  facts::Job job = job_of(Objective::dpo);
  job.train.method = facts::Method::lora;
  const facts::Plan shared = planned_roles(job);
  job.train.reference = facts::ReferenceUse::precomputed;
  const facts::Plan none = planned_roles(job);
  EXPECT_EQ(shared.vram.fullest.steady_allocated, none.vram.fullest.steady_allocated);
}

// A pair is two rows: as many tokens a second of a step count.
TEST(Objective, PairsCountBothAnswers) {
  const facts::Plan plan = planned_roles(job_of(Objective::dpo));
  EXPECT_DOUBLE_EQ(plan.pace.tokens->value(), plan.pace.samples->value() * 2 * 512);
  EXPECT_EQ(*plan.job.train.global_batch, 2);
}

// A host that holds two models until they are asked holds them page-locked, and the card does not.
TEST(Objective, WaitingModelsAreInHostMemory) {
  facts::Job job = job_of(Objective::dpo);
  add(job, Role::reference);
  const facts::Plan held = planned_roles(job);
  job.model.roles[0].offload = facts::OffloadTo::cpu;
  const facts::Plan waiting = planned_roles(job);
  EXPECT_LT(waiting.vram.fullest.steady_allocated, held.vram.fullest.steady_allocated);
  EXPECT_GT(waiting.ram.phases[2][facts::RamCategory::parameters],
            held.ram.phases[2][facts::RamCategory::parameters]);
  EXPECT_GT(waiting.pace.breakdown.offload, held.pace.breakdown.offload);
}

TEST(Objective, RolloutsAreResolved) {
  facts::Job job = job_of(Objective::grpo);
  job.train.sequence_length.reset();
  job.train.gradient_accumulation = 4;
  job.train.rollout.response_length = 128;
  const facts::Plan plan = planned_roles(job);
  const facts::RolloutKeys& rollout = plan.job.train.rollout;
  EXPECT_EQ(rollout.prompt_length, 512);
  EXPECT_EQ(plan.job.train.sequence_length, 640);
  EXPECT_EQ(rollout.samples, 8);
  EXPECT_EQ(rollout.group_size, 8);
  EXPECT_EQ(rollout.epochs, 1);
  EXPECT_EQ(plan.job.train.reference, facts::ReferenceUse::none);
  EXPECT_DOUBLE_EQ(plan.pace.samples->value() * plan.pace.step->value(), 8.0);
}

// Two epochs over 16 samples in updates of 4: eight; longer answers take longer to write.
TEST(Objective, StepIsFromOneGenerationToTheNext) {
  facts::Job job = job_of(Objective::ppo);
  job.train.gradient_accumulation = 2;
  job.train.rollout.samples = 16;
  job.train.rollout.epochs = 2;
  add(job, Role::reward);
  const facts::Plan plan = planned_roles(job);
  EXPECT_EQ(updates_of(plan.job), 8);
  EXPECT_EQ(samples_of_step(plan.job), 16);
  EXPECT_DOUBLE_EQ(plan.pace.samples->value() * plan.pace.step->value(), 16.0);
  // The critic was added, and trains.
  EXPECT_EQ(plan.job.model.roles.size(), 3U);
  job.train.rollout.engine = facts::RolloutEngine::separate;
  EXPECT_LT(*planned_roles(job).pace.step, *plan.pace.step);
}

TEST(Objective, ColocatedEngineTakesItsShare) {
  facts::Job job = job_of(Objective::grpo);
  job.train.gradient_accumulation = 4;
  const facts::Plan own = planned_roles(job);
  job.train.rollout.engine = facts::RolloutEngine::colocated;
  job.train.rollout.memory_fraction = 0.5;
  const facts::Plan engine = planned_roles(job);
  EXPECT_GE(engine.vram.fullest.peak_device_used, *own.vram.capacity * Ratio(0.5));
}

TEST(Objective, EveryObjectiveIsPlanned) {
  for (const Objective objective : {Objective::sft, Objective::dpo, Objective::orpo, Objective::kto,
                                    Objective::reward, Objective::ppo, Objective::grpo}) {
    for (const facts::Sharding sharding : {facts::Sharding::none, facts::Sharding::zero2,
                                           facts::Sharding::zero3, facts::Sharding::fsdp}) {
      facts::Job job = job_of(objective);
      job.machine.gpus = 4;
      job.parallel.sharding = sharding;
      const facts::Plan plan = planned_roles(job);
      EXPECT_GT(plan.vram.fullest.peak_allocated, Bytes()) << facts::name_of(objective);
      EXPECT_TRUE(plan.pace.step.has_value()) << facts::name_of(objective);
    }
  }
}

TEST(Objective, MistakesAreNamed) {
  facts::Job job = job_of(Objective::dpo);
  add(job, Role::critic);
  EXPECT_EQ(refused(job), "model.roles[0].role");
  job = job_of(Objective::sft);
  add(job, Role::reference);
  EXPECT_EQ(refused(job), "model.roles[0].role");
  job = job_of(Objective::orpo);
  job.train.reference = facts::ReferenceUse::live;
  EXPECT_EQ(refused(job), "train.reference");
  job = job_of(Objective::ppo);
  job.train.reference = facts::ReferenceUse::precomputed;
  EXPECT_EQ(refused(job), "train.reference");
  job = job_of(Objective::grpo);
  job.train.rollout.group_size = 3;
  EXPECT_EQ(refused(job), "train.rollout.group_size");
  job = job_of(Objective::dpo);
  job.train.loss = facts::Loss::fused;
  EXPECT_EQ(refused(job), "train.loss");
}

// Rows packed with samples of 128 tokens: attention is of each alone, a quarter of 512's.
TEST(Samples, PackedRowsReadThemselves) {
  facts::Job job = job_of(Objective::sft);
  const facts::Plan whole = planned(job);
  job.train.packed = true;
  job.train.sequence_length_mean = 128.0;
  const facts::Plan packed = planned(job);
  EXPECT_DOUBLE_EQ(packed.model.attention_forward_flops_per_sample->value() * 4.0,
                   whole.model.attention_forward_flops_per_sample->value());
  EXPECT_EQ(packed.vram.fullest.by_category[facts::VramCategory::batch],
            whole.vram.fullest.by_category[facts::VramCategory::batch]);
}

// Padded samples: the card holds the longest, storage and rates count what is there.
TEST(Samples, PaddedRowsCountTheMean) {
  facts::Job job = job_of(Objective::sft);
  const facts::Plan whole = planned(job);
  job.train.sequence_length_mean = 128.0;
  const facts::Plan ragged = planned(job);
  EXPECT_EQ(ragged.vram.fullest.peak_allocated, whole.vram.fullest.peak_allocated);
  EXPECT_DOUBLE_EQ(*ragged.job.data.bytes_per_sample * 4, *whole.job.data.bytes_per_sample);
  EXPECT_DOUBLE_EQ(ragged.pace.tokens->value() * 4, whole.pace.tokens->value());
  job.train.sequence_length_mean = 513.0;
  EXPECT_EQ(refused(job), "train.sequence_length_mean");
}

}  // namespace
}  // namespace steelyard::plan
