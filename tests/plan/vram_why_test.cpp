// What fills the GPU at its peak, over jobs of all kinds: nothing missing, nothing twice, and
// shapes that are as large as the bytes they stand for.
#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::Job;

Bytes tensors_of(const facts::VramWhy& why) {
  Bytes sum;
  for (const facts::TensorGroup& group : why.tensors) sum += group.bytes;
  return sum;
}

std::int64_t width_of(const std::string& dtype) {
  if (dtype == "fp32" || dtype == "int32") return 4;
  if (dtype == "int64") return 8;
  return dtype == "bf16" || dtype == "fp16" ? 2 : 1;
}

void expect_honest_shape(const facts::TensorGroup& group) {
  if (group.dtype.empty()) {
    EXPECT_TRUE(group.shape.empty()) << group.operation;
    return;
  }
  std::int64_t bytes = width_of(group.dtype);
  for (const std::int64_t size : group.shape) bytes *= size;
  const std::int64_t each = group.bytes.value() / group.tensors;
  // Blocks are multiples of 512 bytes; one of more than 1 MiB may keep up to 1 MiB that is left.
  EXPECT_LE(bytes, each) << group.operation;
  EXPECT_GE(bytes + (1 << 20), each) << group.operation;
}

void expect_whole(const facts::VramWhy& why) {
  EXPECT_EQ(tensors_of(why) + why.workspaces, why.rank.peak_allocated);
  EXPECT_TRUE(std::is_sorted(why.tensors.begin(), why.tensors.end(),
                             [](const auto& a, const auto& b) { return a.bytes > b.bytes; }));
  for (const facts::TensorGroup& group : why.tensors) {
    EXPECT_FALSE(group.operation.empty());
    EXPECT_GT(group.tensors, 0);
    expect_honest_shape(group);
  }
}

Job random_job(std::mt19937& random) {
  const auto pick = [&](auto... choices) {
    const std::array all{choices...};
    return all[std::uniform_int_distribution<std::size_t>(0, all.size() - 1)(random)];
  };
  SmallModel model;
  model.type = pick("llama", "mistral", "gpt2");
  model.layers = pick(2, 3, 5);
  Job job = job_on_cards("a100-sxm-80gb", pick(1, 2, 4));
  job.model.config = config_of(model);
  job.train.sequence_length = pick(64, 256);
  job.train.micro_batch = pick(1, 3);
  job.train.gradient_accumulation = pick(1, 2, 4);
  job.train.precision = pick(facts::Precision::fp32, facts::Precision::bf16_mixed,
                             facts::Precision::bf16, facts::Precision::fp16_mixed);
  job.train.optimizer.name = pick(facts::OptimizerName::adamw, facts::OptimizerName::sgd,
                                  facts::OptimizerName::sgd_momentum);
  job.train.recompute.mode = pick(facts::RecomputeMode::none, facts::RecomputeMode::full);
  if (*job.machine.gpus > 1) {
    job.parallel.sharding = pick(facts::Sharding::none, facts::Sharding::fsdp,
                                 facts::Sharding::fsdp1, facts::Sharding::zero1);
  }
  return job;
}

TEST(VramWhy, TheTensorsAreThePeakOfTheRank) {
  std::mt19937 random(20261124);
  for (int i = 0; i < 60; ++i) {
    SCOPED_TRACE(i);
    const Request request = request_for(random_job(random));
    const facts::VramWhy why = value_of(vram_why(request));
    expect_whole(why);
    const facts::Plan plan = value_of(plan::plan(request));
    EXPECT_EQ(why.rank.peak_allocated, plan.vram.fullest.peak_allocated);
    EXPECT_EQ(why.rank.kind, plan.vram.fullest.kind);
  }
}

// GPT-2's output layer in fp32: the logits of 8 x 1024 tokens are 8192 x 50257 x 4 bytes = 1.5 GiB,
// and at the peak log_softmax, its backward and nll_loss's backward have one such tensor each.
TEST(VramWhy, TheLossOfGpt2ByHand) {
  Job job = job_on_cards("a100-sxm-80gb", 1);
  job.model.config = std::string("gpt2");
  job.train.precision = facts::Precision::fp32;
  job.train.sequence_length = 1024;
  job.train.micro_batch = 8;
  job.train.recompute.mode = facts::RecomputeMode::full;
  const facts::VramWhy why = value_of(vram_why(request_for(job)));
  const auto softmax = std::find_if(
      why.tensors.begin(), why.tensors.end(),
      [](const facts::TensorGroup& group) { return group.operation.ends_with("log_softmax"); });
  ASSERT_NE(softmax, why.tensors.end());
  EXPECT_EQ(softmax->shape, (std::vector<std::int64_t>{8192, 50257}));
  EXPECT_EQ(softmax->dtype, "fp32");
  EXPECT_EQ(softmax->tensors, 1);
  EXPECT_EQ(softmax->born.phase, "forward");
  EXPECT_EQ(softmax->freed->phase, "backward");
}

TEST(VramWhy, AnotherRankThanTheFullest) {
  Job job = job_on_cards("a100-sxm-80gb", 4);
  job.model.config = config_of({.layers = 4});
  job.train.sequence_length = 256;
  job.parallel.pipeline = 4;
  job.train.gradient_accumulation = 8;
  const Request request = request_for(job);
  const facts::VramWhy fullest = value_of(vram_why(request));
  expect_whole(fullest);
  ASSERT_GT(fullest.kinds.size(), 2U);
  for (const std::string& kind : fullest.kinds) {
    const facts::VramWhy why = value_of(vram_why(request, kind));
    EXPECT_EQ(why.rank.kind, kind);
    expect_whole(why);
    EXPECT_LE(why.rank.peak_device_used, fullest.rank.peak_device_used);
  }
  const auto none = vram_why(request, "pipeline stage 9 of 4");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::unknown_name);
  EXPECT_NE(none.error().accepted.find(fullest.kinds[1]), std::string::npos);
}

}  // namespace
}  // namespace steelyard::plan
