// Batches as long as their own longest sample: what the allocator holds when the longest comes.
#include <gtest/gtest.h>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

facts::Job job_with(std::optional<double> mean, const char* framework = "torchtune") {
  facts::Job job = job_on_cards("a100-sxm-80gb", 1);
  job.framework = framework;
  job.model.config = config_of({.vocabulary = 32000});
  job.train.micro_batch = 2;
  job.train.sequence_length = 512;
  job.train.sequence_length_mean = mean;
  return job;
}

const facts::RankMemory& memory_of(const facts::Plan& plan) {
  return plan.vram.fullest;
}

// Two samples are 1.5 means long at first; then come 2.5 and 3.5 means, then 512 tokens: logits in
// fp32 of 192, 320 and 448 tokens were allocated before, whose segments none of 512 can use.
TEST(SampleLengths, ShorterBatchesLeaveSegmentsThatLongerOnesCannotUse) {
  const facts::Plan alike = planned(job_with(512.0));
  const facts::Plan varied = planned(job_with(128.0));
  // Alike but for the tails of blocks that are not split.
  const auto allocated = [](const facts::Plan& plan) {
    return static_cast<double>(memory_of(plan).peak_allocated.value());
  };
  EXPECT_NEAR(allocated(varied) / allocated(alike), 1.0, 0.005);
  const std::int64_t logits = 2 * 448 * 32000 * 4;
  EXPECT_GT(memory_of(varied).peak_reserved, memory_of(alike).peak_reserved + Bytes(logits));
}

TEST(SampleLengths, WithoutAMeanAllAreAlike) {
  const facts::Plan unknown = planned(job_with({}));
  const facts::Plan alike = planned(job_with(512.0));
  EXPECT_EQ(memory_of(unknown).peak_reserved, memory_of(alike).peak_reserved);
}

TEST(SampleLengths, PackedRowsAreAlike) {
  facts::Job job = job_with(128.0);
  job.train.packed = true;
  facts::Job whole = job_with({});
  whole.train.packed = true;
  EXPECT_EQ(memory_of(planned(job)).peak_reserved, memory_of(planned(whole)).peak_reserved);
}

// LitGPT's loop begins with the longest sample.
TEST(SampleLengths, TheLongestFirstLeavesRoomForAll) {
  const facts::Plan varied = planned(job_with(128.0, "litgpt"));
  const facts::Plan unknown = planned(job_with({}, "litgpt"));
  EXPECT_EQ(memory_of(varied).peak_reserved, memory_of(unknown).peak_reserved);
}

}  // namespace
}  // namespace steelyard::plan
