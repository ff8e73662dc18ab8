// Batches as long as their own longest sample: what the allocator holds when the longest comes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "plan/planning.h"
#include "plan/ranks.h"

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

// The logits of a batch of 448 tokens fit no batch of 512: their segments are there besides.
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

// The slots of one micro-batch of each length, and which of them holds the logits in fp32.
struct Lengths {
  step::Program program;
  std::size_t logits = 0;
  [[nodiscard]] double of(std::size_t batch) const {
    return static_cast<double>(program.shorter_steps[batch][logits].value()) * 512.0 /
           static_cast<double>(program.slots[logits].bytes.value());
  }
};

Lengths lengths_of(const facts::Job& job) {
  Lengths lengths;
  lengths.program = value_of(ranks_of(request_for(job))).programs.front().program;
  const auto& slots = lengths.program.slots;
  const auto largest =
      std::max_element(slots.begin(), slots.end(),
                       [](const step::Slot& a, const step::Slot& b) { return a.bytes < b.bytes; });
  lengths.logits = static_cast<std::size_t>(largest - slots.begin());
  EXPECT_EQ(largest->bytes, Bytes(*job.train.micro_batch * 512 * 32000 * 4));
  return lengths;
}

// Their mean is the job's, rising and falling, and a batch is as long as its longest sample.
TEST(SampleLengths, LengthsHaveTheirMean) {
  for (const double mean : {100.0, 256.0, 410.0}) {
    SCOPED_TRACE(mean);
    facts::Job job = job_with(mean);
    const auto mean_of = [](const Lengths& lengths) {
      double sum = 0.0;
      for (std::size_t i = 0; i < lengths.program.shorter_steps.size(); ++i) sum += lengths.of(i);
      return sum / static_cast<double>(lengths.program.shorter_steps.size());
    };
    job.train.micro_batch = 1;
    EXPECT_NEAR(mean_of(lengths_of(job)), mean, 0.02 * 512.0);
    job.train.micro_batch = 8;
    EXPECT_GT(mean_of(lengths_of(job)), mean + 50.0);
  }
}

// What two other lengths tell of all is what the model makes of them, scores of attention included.
TEST(SampleLengths, SizesAreThoseOfTheLength) {
  facts::Job job = job_with(200.0);
  job.train.attention = facts::Attention::math;
  const Lengths lengths = lengths_of(job);
  ASSERT_EQ(lengths.program.shorter_steps.size(), 50U);
  for (const std::size_t batch : {0U, 7U, 20U, 49U}) {
    facts::Job shorter = job;
    shorter.train.sequence_length_mean.reset();
    shorter.train.sequence_length = std::llround(lengths.of(batch));
    const auto ranks = value_of(ranks_of(request_for(shorter)));
    const auto& slots = ranks.programs.front().program.slots;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      EXPECT_EQ(lengths.program.shorter_steps[batch][i], slots[i].bytes) << batch << ' ' << i;
    }
  }
}

// Micro-batches of one step have lengths of their own, so as many steps leave as many segments.
TEST(SampleLengths, MicroBatchesOfAStepDiffer) {
  facts::Job job = job_with(128.0);
  const auto reserved = [&] {
    return static_cast<double>(memory_of(planned(job)).peak_reserved.value());
  };
  const double alone = reserved();
  job.train.gradient_accumulation = 16;
  EXPECT_NEAR(reserved() / alone, 1.0, 0.03);
}

// A step of a pipeline has one length, and as many micro-batches of it as are in flight.
TEST(SampleLengths, APipelinePlaysFewerLengths) {
  facts::Job job = job_with(128.0, "megatron");
  job.machine.gpus = 2;
  job.parallel.pipeline = 2;
  job.parallel.data = 1;
  job.train.gradient_accumulation = 8;
  const auto ranks = value_of(ranks_of(request_for(job)));
  ASSERT_FALSE(ranks.programs.empty());
  for (const step::RankProgram& rank : ranks.programs) {
    const auto lengths = static_cast<std::int64_t>(rank.program.shorter_steps.size());
    EXPECT_EQ(lengths, 50 / rank.program.in_flight);
  }
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
