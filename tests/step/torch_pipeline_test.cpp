// What a stage of torch.distributed.pipelining keeps of every micro-batch of a step.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>

#include "step/player.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

constexpr std::int64_t kMicroBatches = 6;
constexpr std::int64_t kVocabulary = 500;

// Two stages, one rank each.
std::vector<RankProgram> stages(const facts::FrameworkProfile& profile) {
  facts::Job job = small_job(2);
  job.parallel.pipeline = 2;
  job.parallel.data = 1;
  job.train.precision = facts::Precision::bf16_mixed;
  job.train.gradient_accumulation = kMicroBatches;
  auto made = programs_of(graph_of(small_llama()), job, profile);
  EXPECT_TRUE(made) << (made ? "" : to_text(made.error()));
  for (const RankProgram& rank : *made) expect_balanced(rank.program, rank.kind);
  return std::move(*made);
}

struct Count {
  std::int64_t now = 0, most = 0, made = 0;
  Bytes bytes;
};

// How many tensors of each name there are at once, and are made.
std::map<std::string, Count> counts_of(const Program& program, const std::vector<Pass>& passes) {
  std::map<std::string, Count> counts;
  play(program, passes, [&](const Event& event, std::int64_t) {
    const bool born = event.kind == EventKind::allocate || event.kind == EventKind::adopt;
    if (!born && event.kind != EventKind::free) return;
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    Count& count = counts[program.names[static_cast<std::size_t>(slot.name)]];
    count.now += born ? 1 : -1;
    count.made += born ? 1 : 0;
    count.most = std::max(count.most, count.now);
    count.bytes = std::max(count.bytes, slot.bytes);
  });
  return counts;
}

// Up to PyTorch 2.7: output_chunks of every stage, and the gradient in each buffer.
TEST(TorchPipeline, KeepsWhatCrossesABorderForTheStep) {
  const auto made = stages(profile_of("pytorch"));
  auto first = counts_of(made[0].program, made[0].program.step);
  auto last = counts_of(made[1].program, made[1].program.step);
  EXPECT_EQ(first["sent activations"].most, kMicroBatches);
  EXPECT_EQ(first["sent activations"].now, 0);  // gone before the next step
  EXPECT_EQ(last["sent gradient"].most, kMicroBatches);
  EXPECT_EQ(last["sent gradient"].now, 0);
}

// A buffer of T H bf16 each: 2 x 64 rows of 64.
TEST(TorchPipeline, ReceivesIntoABufferOfEveryMicroBatch) {
  const auto made = stages(profile_of("pytorch"));
  auto first = counts_of(made[0].program, made[0].program.setup);
  auto last = counts_of(made[1].program, made[1].program.setup);
  EXPECT_EQ(first["buffer for gradients"].now, kMicroBatches);
  EXPECT_EQ(last["buffer for activations"].now, kMicroBatches);
  EXPECT_EQ(last["buffer for activations"].bytes, first["buffer for gradients"].bytes);
  EXPECT_FALSE(first.contains("buffer for activations"));
  EXPECT_FALSE(last.contains("buffer for gradients"));
}

// schedules.py joins the logits of all micro-batches when the last one is done: V x 2 B a row.
TEST(TorchPipeline, MergesTheLogitsOfTheLastStage) {
  const auto made = stages(profile_of("pytorch"));
  auto last = counts_of(made[1].program, made[1].program.step);
  EXPECT_EQ(last["outputs merged"].made, 1);
  EXPECT_EQ(last["outputs merged"].bytes,
            Bytes(kMicroBatches * kSamples * kTokens * kVocabulary * 2));
  EXPECT_FALSE(counts_of(made[0].program, made[0].program.step).contains("outputs merged"));
}

// As PyTorch 2.10 does, and torchtitan, which asks for no outputs.
TEST(TorchPipeline, LaterVersionsLetGo) {
  facts::FrameworkProfile profile = profile_of("pytorch");
  profile.pipeline_keeps_outputs = false;
  profile.pipeline_keeps_gradients = false;
  profile.pipeline_returns_logits = false;
  const auto made = stages(profile);
  auto first = counts_of(made[0].program, made[0].program.step);
  auto last = counts_of(made[1].program, made[1].program.step);
  EXPECT_EQ(first["sent activations"].most, 2);  // as many as are in flight
  EXPECT_EQ(last["sent gradient"].most, 1);
  EXPECT_FALSE(last.contains("outputs merged"));
}

// A torchtitan of a month runs on the nightly build of that month, whatever torch it names.
TEST(TorchPipeline, TorchtitanTakesItsMonthsPyTorch) {
  const auto first_at = [](const char* month) {
    const auto made = stages(profile_of("torchtitan", facts::Object{{"torchtitan", month}}));
    auto first = counts_of(made[0].program, made[0].program.step);
    auto last = counts_of(made[1].program, made[1].program.step);
    return std::array{first["sent activations"].most, last["sent gradient"].most};
  };
  EXPECT_EQ(first_at("2025.05"), (std::array{kMicroBatches, kMicroBatches}));
  EXPECT_EQ(first_at("2025.10"), (std::array<std::int64_t, 2>{2, kMicroBatches}));
  EXPECT_EQ(first_at("2025.12"), (std::array<std::int64_t, 2>{2, 1}));
}

}  // namespace
}  // namespace steelyard::step
