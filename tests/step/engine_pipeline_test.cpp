// Stage borders and the reduce bucket under DeepSpeed's pipeline engine.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "step/player.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

// Two stages, six micro-batches, ZeRO-1.
facts::Job engine_job(std::int64_t tensor) {
  facts::Job job = small_job(4 * tensor);
  job.parallel.tensor = tensor;
  job.parallel.pipeline = 2;
  job.parallel.data = 2;
  job.parallel.sharding = facts::Sharding::zero1;
  job.train.precision = facts::Precision::bf16_mixed;
  job.train.gradient_accumulation = 6;
  return job;
}

RankProgram first_stage(const facts::Job& job, std::string_view framework) {
  auto made = programs_of(graph_of(small_llama()), job, profile_of(framework));
  EXPECT_TRUE(made) << (made ? "" : to_text(made.error()));
  return made ? std::move(made->front()) : RankProgram();
}

struct Count {
  std::int64_t now = 0, most = 0, made = 0;
  Bytes bytes;
};

// How many tensors of each name one step has at once, and makes.
std::map<std::string, Count> counts_of(const Program& program) {
  std::map<std::string, Count> counts;
  play(program, program.step, [&](const Event& event, std::int64_t) {
    const bool born = event.kind == EventKind::allocate || event.kind == EventKind::adopt;
    if (!born && event.kind != EventKind::free) return;
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    Count& count = counts[program.names[static_cast<std::size_t>(slot.name)]];
    count.now += born ? 1 : -1;
    count.made += born ? 1 : 0;
    count.most = std::max(count.most, count.now);
    count.bytes = slot.bytes;
  });
  return counts;
}

// The first of two stages is two micro-batches ahead: two parts of T H x 2 B / 2 each. Of the whole
// there is one at a time, behind the forward pass, and one again in the backward pass.
TEST(EnginePipeline, KeepsTheRanksPartOfWhatItSent) {
  const RankProgram rank = first_stage(engine_job(2), "megatron");
  expect_balanced(rank.program, "ZeRO-1, tensor 2, pipeline 2");
  auto counts = counts_of(rank.program);
  const Bytes whole(kSamples * kTokens * 64 * 2);
  EXPECT_EQ(counts["part of the sent activations"].most, 2);
  EXPECT_EQ(counts["part of the sent activations"].bytes, ceil_divide(whole, 2));
  EXPECT_EQ(counts["sent activations"].most, 1);
  EXPECT_EQ(counts["sent activations"].bytes, whole);
  EXPECT_EQ(counts["sent activations again"].made, 6);
  EXPECT_EQ(counts["sent activations again"].bytes, whole);
}

// Nobody to share it with: the whole output waits for its backward pass.
TEST(EnginePipeline, KeepsTheWholeOutputAlone) {
  const RankProgram rank = first_stage(engine_job(1), "megatron");
  expect_balanced(rank.program, "ZeRO-1, pipeline 2");
  auto counts = counts_of(rank.program);
  EXPECT_EQ(counts["sent activations"].most, 2);
  EXPECT_FALSE(counts.contains("part of the sent activations"));
}

// Megatron-LM's own schedule drops what it sent (deallocate_output_tensor).
TEST(EnginePipeline, IsNotMegatrons) {
  facts::Job job = engine_job(2);
  job.parallel.sharding = facts::Sharding::none;
  auto counts = counts_of(first_stage(job, "megatron").program);
  EXPECT_EQ(counts["sent activations"].most, 1);
  EXPECT_FALSE(counts.contains("part of the sent activations"));
}

// Behind the last backward pass, not before each.
TEST(EnginePipeline, ReducesOnceAStep) {
  auto counts = counts_of(first_stage(engine_job(2), "megatron").program);
  EXPECT_EQ(counts["reduce bucket"].made, 1);
  facts::Job flat = engine_job(2);
  flat.parallel.pipeline = 1;
  flat.machine.gpus = 4;
  counts = counts_of(first_stage(flat, "megatron").program);
  EXPECT_EQ(counts["reduce bucket"].made, 6);
}

}  // namespace
}  // namespace steelyard::step
