// Advice on the host's side, on other machines, and its order; each line is what planning it gives.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::Advice;
using facts::AdviceEffort;
using facts::Job;

Request with_advice(const Job& job) {
  Request request = request_for(job);
  request.advice = true;
  request.alternatives = [job] { return value_of(own_catalog().alternatives(job)); };
  return request;
}

const Advice* that_sets(const facts::Plan& plan, const std::string& key) {
  const auto& all = plan.balance.advice;
  const auto found = std::ranges::find_if(
      all, [&](const Advice& advice) { return advice.set.front().first == key; });
  return found == all.end() ? nullptr : &*found;
}

double weight(AdviceEffort effort) {
  return effort == AdviceEffort::setting ? 1.0 : effort == AdviceEffort::care ? 2.0 : 4.0;
}

Job starved_job() {
  Job job = job_on_cards("h100-sxm-80gb", 8);
  job.model.config = std::string("resnet-50");
  job.train.image_size = {224, 224};
  job.train.micro_batch = 64;
  job.train.optimizer.name = facts::OptimizerName::sgd_momentum;
  job.data.kind = facts::DataKind::jpeg;
  job.data.samples = 1'281'167;
  job.data.bytes_per_sample = 110'000;
  job.data.workers = 2;
  job.machine.cores = 64;
  job.machine.ram_gib = 1024;
  job.machine.storage_gb_per_s = 10;
  return job;
}

// Two workers per GPU decode too little: more of them, the GPU, and a decoded copy in memory help;
// what the advice says of each is what the changed job's own plan says.
TEST(HostAdvice, FeedsGpusThatWaitForDecoding) {
  const Job job = starved_job();
  const facts::Plan plan = value_of(steelyard::plan::plan(with_advice(job)));
  ASSERT_EQ(plan.feed.limited_by, "decode");
  const Advice* more = that_sets(plan, "data.workers");
  ASSERT_NE(more, nullptr);
  Job changed = job;
  changed.data.workers = std::stoll(more->set.front().second);
  EXPECT_GT(*changed.data.workers, 2);
  facts::Plan after = planned(changed);
  EXPECT_EQ(more->step, after.pace.step);
  EXPECT_EQ(more->ram_peak, after.ram.peak);
  EXPECT_EQ(more->vram_peak, after.vram.fullest.peak_device_used);
  const Advice* on_gpu = that_sets(plan, "data.decode");
  ASSERT_NE(on_gpu, nullptr);
  changed = job;
  changed.data.decode = facts::DecodeOn::gpu;
  after = planned(changed);
  EXPECT_EQ(on_gpu->step, after.pace.step);
  EXPECT_EQ(on_gpu->effort, AdviceEffort::care);
}

TEST(HostAdvice, IsOrderedByGainOverEffort) {
  const facts::Plan plan = value_of(steelyard::plan::plan(with_advice(starved_job())));
  ASSERT_GE(plan.balance.advice.size(), 2U);
  double last = 1e300;
  for (const Advice& advice : plan.balance.advice) {
    ASSERT_TRUE(advice.gain.has_value()) << advice.sentence;
    EXPECT_GT(advice.gain->value(), 0.02);
    const double score = advice.gain->value() / weight(advice.effort);
    EXPECT_LE(score, last) << advice.sentence;
    last = score;
  }
}

// A job that keeps its GPUs busy gets no advice about its loaders.
TEST(HostAdvice, SaysNothingOfLoadersThatSuffice) {
  Job job = job_on_cards("rtx-3090", 1);
  job.model.config = std::string("gpt2");
  job.train.sequence_length = 1024;
  const facts::Plan plan = value_of(steelyard::plan::plan(with_advice(job)));
  for (const Advice& advice : plan.balance.advice) {
    EXPECT_FALSE(advice.set.front().first.starts_with("data.")) << advice.sentence;
  }
}

// One GPT-2 on one of eight H100: a machine that costs less does it for less, and seven of eight
// GPUs are paid for nothing.
TEST(MachineAdvice, NamesWhatCostsLess) {
  Job job = job_on("aws:p5.48xlarge", 1);
  job.model.config = std::string("gpt2");
  job.train.sequence_length = 512;
  job.train.micro_batch = 4;
  const facts::Plan plan = value_of(steelyard::plan::plan(with_advice(job)));
  ASSERT_TRUE(plan.fits());
  ASSERT_TRUE(plan.cost.has_value());
  EXPECT_GE(*plan.cost->wasted_per_hour, plan.cost->per_hour * 7.0 / 8.0 - 1e-9);
  const Advice* other = that_sets(plan, "machine.name");
  ASSERT_NE(other, nullptr);
  EXPECT_TRUE(other->fits);
  EXPECT_EQ(other->effort, AdviceEffort::machine);
  EXPECT_LT(*other->cost_per_million_samples, *plan.cost->per_million_samples);
  Job moved = job;
  moved.machine.name = other->set.front().second;
  const facts::Plan after = planned(moved);
  EXPECT_EQ(other->step, after.pace.step);
  EXPECT_EQ(other->vram_peak, after.vram.fullest.peak_device_used);
  EXPECT_EQ(*other->cost_per_hour, after.cost->per_hour);
}

// A card that holds what this one does not.
TEST(MachineAdvice, NamesACardThatIsLargeEnough) {
  Job job = job_on_cards("rtx-3090", 1);
  job.model.config = std::string("gpt2-xl");
  job.train.sequence_length = 1024;
  job.train.micro_batch = 1;
  const facts::Plan plan = value_of(steelyard::plan::plan(with_advice(job)));
  ASSERT_EQ(plan.fits_vram, false);
  const Advice* card = that_sets(plan, "machine.gpu");
  ASSERT_NE(card, nullptr);
  EXPECT_TRUE(card->fits);
  EXPECT_GT(card->vram_peak, Bytes());
}

// The optimizer on the host, where the host has room.
TEST(OffloadAdvice, MovesTheOptimizerToAHostWithRoom) {
  Job job = job_on_cards("l40s-48gb", 1);
  if (!own_catalog().gpu("l40s-48gb")) job.machine.gpu = "l40s";
  job.model.config = std::string("llama-3.2-3b");
  job.train.sequence_length = 512;
  job.train.micro_batch = 1;
  job.train.recompute.mode = facts::RecomputeMode::full;
  job.train.optimizer.fused = true;
  const facts::Plan plan = value_of(steelyard::plan::plan(with_advice(job)));
  ASSERT_EQ(plan.fits_vram, false);
  const bool offloads = std::ranges::any_of(plan.balance.advice, [](const Advice& advice) {
    return advice.fits && std::ranges::any_of(advice.set, [](const auto& setting) {
             return setting.first == "offload.optimizer" && setting.second == "cpu";
           });
  });
  EXPECT_TRUE(offloads);
}

}  // namespace
}  // namespace steelyard::plan
