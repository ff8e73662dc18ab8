// Several models in one program: what is held, asked, written and freed, and that nothing is left.
#include "step/alignment.h"

#include <gtest/gtest.h>

#include <utility>

#include "model/generation.h"
#include "model/task_head.h"
#include "step/merge.h"
#include "step/player.h"

namespace steelyard::step {
namespace {

using facts::VramCategory;
using model::TaskHead;

constexpr std::int64_t kVocabulary = 500;

model::Graph headed(TaskHead head, std::int64_t rows, std::int64_t tokens = kTokens,
                    std::int64_t keeps = 0) {
  const Result<model::Graph> graph = model::build(small_llama(), {rows, tokens});
  EXPECT_TRUE(graph);
  const auto with = model::with_task_head(*graph, {.head = head, .keeps = keeps});
  EXPECT_TRUE(with) << (with ? "" : to_text(with.error()));
  return with.value_or(model::Graph());
}

facts::Job mixed_job(std::int64_t ranks = 1) {
  facts::Job job = small_job(ranks);
  job.train.precision = facts::Precision::bf16_mixed;
  return job;
}

AskedModel reference(std::int64_t rows) {
  return {.label = "reference", .graph = headed(TaskHead::log_probabilities, rows)};
}

Program composed(const model::Graph& policy, const facts::Job& job, const Alignment& alignment) {
  Result<std::vector<RankProgram>> programs =
      programs_of_several(policy, job, profile_of("transformers"), {}, {}, alignment);
  EXPECT_TRUE(programs) << (programs ? "" : to_text(programs.error()));
  return programs ? std::move(programs->front().program) : Program();
}

Bytes held_by_setup(const Program& program, VramCategory category) {
  Bytes sum;
  for (const Pass& pass : program.setup) {
    for (const Phase& phase : pass.phases) {
      for (const Body& body : phase.bodies) {
        for (const Event& event : body.events) {
          const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
          if (event.kind == EventKind::allocate && slot.category == category) {
            sum += slot.bytes * body.repeat;
          }
        }
      }
    }
  }
  return sum;
}

std::int64_t phases_of(const Program& program, PhaseKind kind) {
  std::int64_t count = 0;
  for (const Pass& pass : program.step) {
    for_each_phase(pass, [&](const Phase& phase) {
      count += phase.kind == kind ? pass.repeat * phase.repeat : 0;
    });
  }
  return count;
}

// A pair is two rows; the reference is held beside the policy, whole and without a gradient, and is
// asked in each micro-batch behind the policy's forward pass.
TEST(Alignment, ReferenceIsAskedInEachMicroBatch) {
  const model::Graph policy = headed(TaskHead::log_probabilities_loss, 2 * kSamples);
  facts::Job job = mixed_job();
  job.train.gradient_accumulation = 3;
  Alignment alignment;
  alignment.asked.push_back(reference(2 * kSamples));
  const Program with = composed(policy, job, alignment);
  const Program alone = composed(policy, job, {});
  expect_balanced(with, "dpo");
  EXPECT_EQ(phases_of(with, PhaseKind::forward), 3);
  EXPECT_EQ(phases_of(with, PhaseKind::scoring), 3);
  EXPECT_EQ(phases_of(with, PhaseKind::backward), 3);
  const Bytes weights = Bytes(4) * model::parameter_count(policy).value();
  EXPECT_EQ(held_by_setup(with, VramCategory::parameters) -
                held_by_setup(alone, VramCategory::parameters),
            weights);
  EXPECT_EQ(with.states.parameters.value(), 2 * alone.states.parameters.value());
  EXPECT_EQ(with.states.trainable, alone.states.trainable);
  EXPECT_EQ(with.states.frozen_beside, weights);
  EXPECT_EQ(with.states.optimizer_bytes, alone.states.optimizer_bytes);
}

// PEFT: the reference is the base with its adapters off, so nothing more is held.
TEST(Alignment, AdaptersOffNeedNoCopy) {
  const model::Graph policy = headed(TaskHead::log_probabilities_loss, 2 * kSamples);
  facts::Job job = mixed_job();
  job.train.method = facts::Method::lora;
  Alignment alignment;
  AskedModel base = reference(2 * kSamples);
  base.own_weights = false;
  base.adapters_off = base.as_policy = true;
  alignment.asked.push_back(std::move(base));
  const Program with = composed(policy, job, alignment);
  const Program alone = composed(policy, job, {});
  expect_balanced(with, "dpo with adapters");
  EXPECT_EQ(held_by_setup(with, VramCategory::parameters),
            held_by_setup(alone, VramCategory::parameters));
  EXPECT_EQ(with.states.parameters, alone.states.parameters);
  EXPECT_EQ(phases_of(with, PhaseKind::scoring), 1);
}

// A model that waits in host memory holds nothing on the card between its turns.
TEST(Alignment, WaitingModelComesAndGoes) {
  const model::Graph policy = headed(TaskHead::log_probabilities_loss, 2 * kSamples);
  Alignment alignment;
  alignment.asked.push_back(reference(2 * kSamples));
  alignment.asked.front().waits = true;
  const Program with = composed(policy, mixed_job(), alignment);
  const Program alone = composed(policy, mixed_job(), {});
  expect_balanced(with, "dpo, reference in host memory");
  EXPECT_EQ(held_by_setup(with, VramCategory::parameters),
            held_by_setup(alone, VramCategory::parameters));
  EXPECT_EQ(with.states.waiting_bytes, with.states.frozen_beside);
  Bytes moved;
  for (const Work& work : with.work) {
    if (work.kind == WorkKind::transfer) moved += work.traffic;
  }
  EXPECT_GT(moved, Bytes());
}

Alignment ppo(bool joint) {
  Alignment alignment;
  alignment.joint_critic = joint;
  alignment.asked.push_back(reference(kSamples));
  alignment.asked.push_back({.label = "reward", .graph = headed(TaskHead::scores, kSamples)});
  AskedModel values{.label = "critic", .graph = headed(TaskHead::scores, kSamples)};
  values.own_weights = false;
  alignment.asked.push_back(std::move(values));
  alignment.critic.push_back(headed(TaskHead::scores_loss, kSamples));
  Generation generation;
  generation.prompt = headed(TaskHead::logits, 4, kTokens / 2, 1);
  const model::Graph one = headed(TaskHead::logits, 4, 1, 1);
  generation.stages = {{model::with_past(one, 48), 16, 48}, {model::with_past(one, 64), 16, 64}};
  generation.batches = 3;
  alignment.generation.push_back(std::move(generation));
  alignment.asks = 6;
  alignment.updates = 8;
  alignment.rollout = Bytes(12'000);
  return alignment;
}

// Generation, then scoring, then updates; the critic has states of its own.
TEST(Alignment, RolloutIsWrittenScoredAndLearned) {
  const model::Graph policy =
      headed(TaskHead::log_probabilities_loss, kSamples, kTokens, kTokens / 2 + 1);
  for (const bool joint : {false, true}) {
    const Program program = composed(policy, mixed_job(), ppo(joint));
    expect_balanced(program, joint ? "joint" : "one after the other");
    EXPECT_EQ(program.step.front().phases.front().kind, PhaseKind::generation);
    EXPECT_EQ(phases_of(program, PhaseKind::scoring), 3 * 6);
    EXPECT_EQ(program.updates.times, 8);
    EXPECT_EQ(phases_of(program, PhaseKind::optimizer), 2);
    EXPECT_EQ(phases_of(program, PhaseKind::forward), 2);
    // The critic: the policy without its head, and a score of 64 inputs.
    const std::int64_t critic =
        model::parameter_count(policy).value() - std::int64_t{kVocabulary} * 64 + 64;
    EXPECT_EQ(program.states.trains_beside.value(), critic);
  }
}

// Keys and values of two key-value heads of 16 in 3 layers, bf16, of 4 samples and 64 tokens.
TEST(Alignment, CacheGrowsToTheWholeSample) {
  const model::Graph policy = headed(TaskHead::log_probabilities_loss, kSamples);
  const Program program = composed(policy, mixed_job(), ppo(false));
  Bytes largest;
  for (const Slot& slot : program.slots) {
    if (program.names[static_cast<std::size_t>(slot.name)] == "generation: cache") {
      largest = std::max(largest, slot.bytes);
    }
  }
  EXPECT_EQ(largest, Bytes(4 * 64 * 2 * 16 * 2));
}

// TRL's scores of all samples, twice for a moment, and until the next generation.
TEST(Alignment, KeptScoresOutliveTheStep) {
  Alignment alignment = ppo(true);
  alignment.generation.front().kept_scores = 1000;
  const model::Graph policy = headed(TaskHead::log_probabilities_loss, kSamples);
  const Program program = composed(policy, mixed_job(), alignment);
  EXPECT_EQ(held_by_setup(program, VramCategory::activations), Bytes(4000));
}

TEST(Alignment, ShardedModelsAreBalancedToo) {
  const model::Graph policy = headed(TaskHead::log_probabilities_loss, kSamples);
  for (const facts::Sharding sharding :
       {facts::Sharding::fsdp, facts::Sharding::zero2, facts::Sharding::zero3}) {
    facts::Job job = mixed_job(4);
    job.parallel.sharding = sharding;
    job.parallel.shard_group = 4;
    expect_balanced(composed(policy, job, ppo(false)), std::string(facts::name_of(sharding)));
  }
}

}  // namespace
}  // namespace steelyard::step
