// Several models on ranks that share layers: tensor, context and pipeline groups. What a rank holds
// of each, by hand; that nothing is left over; that questions come ahead where a schedule runs.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

#include "model/generation.h"
#include "model/task_head.h"
#include "step/alignment.h"
#include "step/player.h"

namespace steelyard::step {
namespace {

using facts::VramCategory;
using model::TaskHead;

constexpr std::int64_t kVocabulary = 500, kHidden = 64;

model::Graph headed(TaskHead head, std::int64_t rows, std::int64_t tokens = kTokens,
                    std::int64_t keeps = 0) {
  const Result<model::Graph> graph = model::build(small_llama(), {rows, tokens});
  EXPECT_TRUE(graph);
  const auto with = model::with_task_head(*graph, {.head = head, .keeps = keeps});
  EXPECT_TRUE(with) << (with ? "" : to_text(with.error()));
  return with.value_or(model::Graph());
}

facts::Job split_job(std::int64_t tensor, std::int64_t pipeline = 1, bool sequence = false) {
  facts::Job job = small_job(tensor * pipeline);
  job.parallel.data = 1;
  job.parallel.tensor = tensor;
  job.parallel.pipeline = pipeline;
  job.parallel.sequence_parallel = sequence;
  job.train.precision = facts::Precision::bf16_mixed;
  job.train.gradient_accumulation = 4;
  return job;
}

// Every kind of question, and a generation.
Alignment everything() {
  Alignment alignment;
  alignment.asked.push_back(
      {.label = "reference", .graph = headed(TaskHead::log_probabilities, kSamples)});
  alignment.asked.push_back({.label = "reward", .graph = headed(TaskHead::scores, kSamples)});
  alignment.critic.push_back(headed(TaskHead::scores_loss, kSamples));
  Generation generation;
  generation.prompt = headed(TaskHead::logits, 4, kTokens / 2, 1);
  const model::Graph one = headed(TaskHead::logits, 4, 1, 1);
  generation.stages = {{model::with_past(one, 48), 16, 48}, {model::with_past(one, 64), 16, 64}};
  alignment.generation.push_back(std::move(generation));
  alignment.asks = 3;
  alignment.updates = 2;
  alignment.rollout = Bytes(12'000);
  return alignment;
}

std::vector<RankProgram> composed(const facts::Job& job, const Alignment& alignment,
                                  const char* framework = "transformers") {
  const model::Graph policy = headed(TaskHead::log_probabilities_loss, kSamples);
  auto programs = programs_of_several(policy, job, profile_of(framework), {}, {}, alignment);
  EXPECT_TRUE(programs) << (programs ? "" : to_text(programs.error()));
  return programs ? std::move(*programs) : std::vector<RankProgram>();
}

Bytes parameters_held(const Program& program) {
  Bytes sum;
  for (const Pass& pass : program.setup) {
    for (const Phase& phase : pass.phases) {
      for (const Body& body : phase.bodies) {
        for (const Event& event : body.events) {
          const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
          const bool held = event.kind == EventKind::allocate;
          if (held && slot.category == VramCategory::parameters) sum += slot.bytes * body.repeat;
        }
      }
    }
  }
  return sum;
}

Alignment with_reference(bool waits = false) {
  Alignment alignment;
  alignment.asked.push_back(
      {.label = "reference", .graph = headed(TaskHead::log_probabilities, kSamples)});
  alignment.asked.front().waits = waits;
  return alignment;
}

// Two ranks: q and o 64 x 64, k and v 64 x 32, three matrices of 64 x 160, embedding and head of
// 500 rows are halved; norms, two in each layer and one at the end, are whole. fp32.
constexpr std::int64_t kHalves =
    kLayers * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160) / 2 + 2 * kVocabulary * kHidden / 2;
constexpr std::int64_t kWhole = (2 * kLayers + 1) * kHidden;

TEST(SplitRoles, TensorRanksHoldTheirPartOfTheReference) {
  const std::vector<RankProgram> with = composed(split_job(2), with_reference());
  const std::vector<RankProgram> alone = composed(split_job(2), {});
  ASSERT_EQ(with.size(), 1U);
  EXPECT_EQ(parameters_held(with[0].program) - parameters_held(alone[0].program),
            Bytes(4 * (kHalves + kWhole)));
  // The job's sums are of whole models.
  EXPECT_EQ(with[0].program.states.parameters.value(),
            2 * alone[0].program.states.parameters.value());
}

// One that waits lies in host memory in as many parts, and comes over the rank's own link.
TEST(SplitRoles, WaitingModelsAreDividedToo) {
  const std::vector<RankProgram> waits = composed(split_job(2), with_reference(true));
  const Program& program = waits.at(0).program;
  EXPECT_EQ(program.states.waiting_bytes, Bytes(4 * (kHalves + kWhole)));
  Bytes moved;
  for (const Phase& phase : program.step.front().phases) {
    for (const Body& body : phase.bodies) {
      for (const Event& event : body.events) {
        if (event.kind != EventKind::work) continue;
        const Work& work = program.work[static_cast<std::size_t>(event.index)];
        if (work.kind == WorkKind::transfer) moved += work.traffic * body.repeat;
      }
    }
  }
  EXPECT_EQ(moved, program.states.waiting_bytes);
}

TEST(SplitRoles, LeaveNothingBehind) {
  for (const char* framework : {"transformers", "deepspeed"}) {
    for (const auto& [tensor, pipeline, sequence] :
         {std::tuple{2, 1, true}, {1, 3, false}, {2, 3, true}}) {
      const facts::Job job = split_job(tensor, pipeline, sequence);
      for (const Alignment& alignment : {with_reference(), with_reference(true), everything()}) {
        for (const RankProgram& rank : composed(job, alignment, framework)) {
          expect_balanced(rank.program, std::string(framework) + ", " + rank.kind);
        }
      }
    }
  }
}

// A scheduled pipeline is asked about all micro-batches before the first of them is learned from.
TEST(SplitRoles, PipelinesAskAhead) {
  const std::vector<RankProgram> stages = composed(split_job(1, 3), with_reference());
  ASSERT_EQ(stages.size(), 3U);
  Bytes held;
  for (const RankProgram& stage : stages) {
    const Pass& first = stage.program.step.front();
    EXPECT_EQ(first.phases.front().kind, PhaseKind::scoring);
    EXPECT_EQ(first.repeat, 4);
    for (std::size_t i = 1; i < stage.program.step.size(); ++i) {
      for (const Phase& phase : stage.program.step[i].phases) {
        EXPECT_NE(phase.kind, PhaseKind::scoring);
      }
    }
    held += parameters_held(stage.program);
  }
  // Two models over the stages: all of both, once.
  const model::Graph whole = headed(TaskHead::log_probabilities, kSamples);
  EXPECT_EQ(held, Bytes(2 * 4 * model::parameter_count(whole).value()));
}

Bytes largest_cache(const Program& program) {
  Bytes largest;
  for (const Slot& slot : program.slots) {
    if (program.names[static_cast<std::size_t>(slot.name)] == "generation: cache") {
      largest = std::max(largest, slot.bytes);
    }
  }
  return largest;
}

// Keys of one of two heads of 16, bf16, of 4 samples and 64 tokens.
TEST(SplitRoles, CachesAreOfTheRanksOwnHeads) {
  const std::vector<RankProgram> ranks = composed(split_job(2), everything());
  EXPECT_EQ(largest_cache(ranks.at(0).program), Bytes(4 * 64 * 16 * 2));
  const std::vector<RankProgram> whole = composed(split_job(1), everything());
  EXPECT_EQ(largest_cache(whole.at(0).program), Bytes(4 * 64 * 2 * 16 * 2));
}

}  // namespace
}  // namespace steelyard::step
