// Bounds of layouts against their plans.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "search/own_planner.h"
#include "search/random_jobs.h"
#include "search/space.h"

namespace steelyard::search {
namespace {

// A plan of the layout against its bound; why it was refused where both say so.
struct Compared {
  bool known = false;
  std::string refused{};  // the key that the planner names
};
Compared compared(const facts::Job& job, const Bounds& bounds) {
  const auto bound = bounds(job, nullptr);
  const auto plan = own_planner()(job, Depth::full);
  if (bound && bound->refused) {
    EXPECT_FALSE(plan);
    return {.refused = plan ? std::string() : plan.error().subject};
  }
  if (!plan || !bound || !plan->pace.step) return {};
  EXPECT_LE(bound->step.value(), plan->pace.step->value() * (1.0 + 1e-9));
  EXPECT_LE(bound->ram, plan->ram.peak);
  EXPECT_LE(bound->vram, plan->vram.fullest.peak_device_used);
  EXPECT_GT(bound->step.value(), 0.0);
  // Beside one that differs in the loader's workers alone it is the same.
  facts::Job sibling = job;
  sibling.data.workers = job.data.workers.value_or(1) + 3;
  const auto alike = bounds(sibling, &*bound);
  const auto alone = bounds(sibling, nullptr);
  EXPECT_TRUE(alike && alone);
  if (alike && alone) {
    EXPECT_EQ(alike->step, alone->step);
    EXPECT_EQ(alike->ram, alone->ram);
    EXPECT_EQ(alike->vram, alone->vram);
  }
  return {.known = true};
}

// Floors of layouts are no more than their plans.
TEST(Bounds, NoPlanGoesBelowItsBound) {
  std::mt19937 random(7);
  int known = 0;
  std::map<std::string, int> refused;
  for (int i = 0; i < 90; ++i) {
    const RandomJob one(random);
    const auto planned = own_planner()(one.job, Depth::full);
    if (!planned) continue;
    SCOPED_TRACE(i);
    const Space space = space_of(one, *planned);
    const Bounds bounds = own_bounds(space.job());
    for (int k = 0; k < 12; ++k) {
      facts::Job job;
      facts::KeySettings set;
      const auto number = static_cast<std::int64_t>(random()) % space.size();
      if (!space.layout(number, job, set)) continue;
      SCOPED_TRACE(testing::PrintToString(set));
      const Compared answer = compared(job, bounds);
      known += answer.known ? 1 : 0;
      if (!answer.refused.empty()) ++refused[answer.refused.substr(0, answer.refused.find('.'))];
      if (!answer.refused.empty()) ++refused[answer.refused];
    }
  }
  EXPECT_GT(known, 150);
  EXPECT_GT(refused["offload"], 0);
  EXPECT_GT(refused["parallel.virtual_stages"], 0);  // groups that do not fill
  EXPECT_GT(refused["parallel.pipeline"], 0);        // more chunks than layers
}

// FSDP's stages reduce gradients once a step, though one rank alone would with each micro-batch.
TEST(Bounds, BoundsOfShardedStagesHold) {
  for (const auto sharding : {facts::Sharding::fsdp, facts::Sharding::hsdp}) {
    for (const bool offloads : {false, true}) {
      facts::Job job;
      job.model.config = std::string("llama-3.1-8b");
      job.framework = "pytorch";
      job.machine.name = "dgx-h100";
      job.machine.nodes = 2;
      job.machine.gpus = 8;
      job.train.sequence_length = 4096;
      job.train.micro_batch = 1;
      job.train.global_batch = 64;
      job.parallel.sharding = sharding;
      job.parallel.pipeline = 2;
      job.parallel.context = sharding == facts::Sharding::fsdp ? 8 : 1;
      job.parallel.tensor = sharding == facts::Sharding::fsdp ? 1 : 4;
      if (offloads) job.offload.parameters = facts::OffloadTo::cpu;
      SCOPED_TRACE(testing::Message() << facts::name_of(sharding) << offloads);
      EXPECT_TRUE(compared(job, own_bounds(job)).known);
    }
  }
}

// What forward sends to the host waits there: the bound of host memory knows of most of it.
TEST(Bounds, TheBoundCountsActivationsOnTheHost) {
  for (const std::int64_t virtual_stages : {1, 2}) {
    facts::Job job;
    job.model.config = std::string("llama-3.1-8b");
    job.framework = "megatron";
    job.machine.name = "dgx-h100";
    job.machine.gpus = 8;
    job.train.sequence_length = 4096;
    job.train.micro_batch = 1;
    job.train.global_batch = 64;
    job.parallel.pipeline = 4;
    job.parallel.virtual_stages = virtual_stages;
    if (virtual_stages > 1) job.parallel.schedule = facts::Schedule::interleaved;
    const auto without = own_bounds(job)(job, nullptr);
    job.offload.activations = facts::OffloadTo::cpu;
    const auto with = own_bounds(job)(job, nullptr);
    const auto plan = own_planner()(job, Depth::full);
    ASSERT_TRUE(without && with && plan);
    EXPECT_LE(with->ram, plan->ram.peak);
    EXPECT_GT((with->ram - without->ram) * 2, plan->ram.peak - without->ram);
  }
}

// Gradients that go to the host with each micro-batch take most of such a step: bounds know.
TEST(Bounds, TheBoundCountsWhatTheHostDoesWithALayer) {
  facts::Job job;
  job.model.config = std::string("llama-3.1-8b");
  job.framework = "megatron";
  job.machine.name = "dgx-h100";
  job.machine.gpus = 8;
  job.train.sequence_length = 2048;
  job.train.micro_batch = 1;
  job.train.global_batch = 64;
  job.parallel.sharding = facts::Sharding::zero1;
  job.offload.optimizer = job.offload.gradients = facts::OffloadTo::cpu;
  const auto bound = own_bounds(job)(job, nullptr);
  const auto plan = own_planner()(job, Depth::full);
  ASSERT_TRUE(bound && plan && plan->pace.step);
  EXPECT_LE(bound->step, *plan->pace.step);
  EXPECT_GT(bound->step * 3.0, *plan->pace.step);
}

// Whole gradients of a layer go as soon as they are reduced: with several micro-batches a bound
// that kept them would be far above the plan of a large sharded model.
TEST(Bounds, TheBoundOfAShardedModelHoldsOverSeveralMicroBatches) {
  facts::Job job;
  job.model.config = std::string("llama-3.1-70b");
  job.machine.name = "dgx-h100";
  job.machine.nodes = 8;
  job.machine.gpus = 8;
  job.train.sequence_length = 4096;
  job.train.micro_batch = 1;
  job.train.global_batch = 256;
  job.train.recompute.mode = facts::RecomputeMode::full;
  job.parallel.sharding = facts::Sharding::fsdp;
  const auto bound = own_bounds(job)(job, nullptr);
  const auto plan = own_planner()(job, Depth::full);
  ASSERT_TRUE(bound && plan);
  EXPECT_LE(bound->vram, plan->vram.fullest.peak_device_used);
  EXPECT_GT(bound->vram * 5, plan->vram.fullest.peak_device_used);
}

}  // namespace
}  // namespace steelyard::search
