// What checkpoints cost a step, by hand: 80 GB, a GPU's link of 20 GB/s, storage of 4 GB/s.
#include "plan/checkpoints.h"

#include <gtest/gtest.h>

namespace steelyard::plan {
namespace {

using facts::CheckpointMethod;

constexpr std::int64_t kGB = 1'000'000'000;

facts::Plan planned(CheckpointMethod method, std::int64_t nodes = 1) {
  facts::Plan plan;
  plan.job.machine.nodes = nodes;
  plan.job.machine.gpus = 8;
  plan.job.data.location = "nvme";
  plan.job.checkpoint.every_steps = 10;
  plan.job.checkpoint.method = method;
  plan.job.origins["checkpoint.every_steps"] = {facts::Origin::job, {}};
  plan.machine.gpu.vendor = "nvidia";
  plan.machine.gpu.host_link =
      facts::Known<BytesPerSecond>(BytesPerSecond(20e9), facts::Provenance::measured);
  facts::Storage storage;
  storage.name = "nvme";
  storage.write = facts::Known<BytesPerSecond>(BytesPerSecond(4e9), facts::Provenance::measured);
  plan.machine.storage = {storage};
  plan.ram.checkpoint_bytes = Bytes(80 * kGB);
  plan.pace.step = Seconds(1.0);
  plan.pace.samples = SamplesPerSecond(100.0);
  plan.pace.breakdown.compute = Seconds(1.0);
  return plan;
}

SavingTime time_of(const facts::Plan& plan) {
  std::string missing;
  const auto time = saving_time(plan, missing);
  EXPECT_TRUE(time) << missing;
  return time.value_or(SavingTime{});
}

TEST(Checkpoints, OneRankCopiesAndWritesTheWholeState) {
  const SavingTime time = time_of(planned(CheckpointMethod::sync));
  EXPECT_DOUBLE_EQ(time.blocked.value(), 80.0 / 20 + 80.0 / 4);
  EXPECT_DOUBLE_EQ(time.written.value(), 80.0 / 4);
}

TEST(Checkpoints, RanksCopyTheirPartsSideBySideAndShareTheNodesStorage) {
  const SavingTime one = time_of(planned(CheckpointMethod::sharded_sync));
  EXPECT_DOUBLE_EQ(one.blocked.value(), 10.0 / 20 + 80.0 / 4);
  const SavingTime four = time_of(planned(CheckpointMethod::sharded_sync, 4));
  EXPECT_DOUBLE_EQ(four.blocked.value(), 2.5 / 20 + 20.0 / 4);
}

// Written in 20 s, ten steps of 1 s later the next one waits for 10 s more.
TEST(Checkpoints, AsynchronousOnesWaitForTheOneBefore) {
  facts::Plan plan = planned(CheckpointMethod::async);
  EXPECT_DOUBLE_EQ(time_of(plan).blocked.value(), 80.0 / 20 + 10);
  plan.job.checkpoint.every_steps = 30;
  EXPECT_DOUBLE_EQ(time_of(plan).blocked.value(), 80.0 / 20);
  EXPECT_DOUBLE_EQ(time_of(planned(CheckpointMethod::sharded_async, 4)).blocked.value(), 2.5 / 20);
}

TEST(Checkpoints, TheStepCarriesItsShareOfOne) {
  facts::Plan plan = planned(CheckpointMethod::sync);  // 24 s every 10 steps
  add_checkpoints(plan);
  EXPECT_DOUBLE_EQ(plan.pace.step->value(), 3.4);
  EXPECT_DOUBLE_EQ(plan.pace.breakdown.checkpoint.value(), 2.4);
  EXPECT_DOUBLE_EQ(plan.pace.breakdown.total().value(), plan.pace.step->value());
  EXPECT_DOUBLE_EQ(plan.pace.samples->value(), 100.0 / 3.4);
}

TEST(Checkpoints, ADefaultIntervalSlowsNothingAndSaysWhatOneCosts) {
  facts::Plan plan = planned(CheckpointMethod::sync);
  plan.job.origins["checkpoint.every_steps"] = {facts::Origin::fallback, {}};
  add_checkpoints(plan);
  EXPECT_DOUBLE_EQ(plan.pace.step->value(), 1.0);
  ASSERT_EQ(plan.pace.assumptions.size(), 1u);
  EXPECT_NE(plan.pace.assumptions[0].find("24 s"), std::string::npos) << plan.pace.assumptions[0];
}

TEST(Checkpoints, AnUnknownRateIsSaidAndNotCountedAsNothing) {
  facts::Plan plan = planned(CheckpointMethod::sync);
  plan.machine.storage[0].write = {};
  add_checkpoints(plan);
  EXPECT_DOUBLE_EQ(plan.pace.step->value(), 1.0);
  ASSERT_EQ(plan.warnings.size(), 1u);
  EXPECT_NE(plan.warnings[0].find("storage writes"), std::string::npos);
}

}  // namespace
}  // namespace steelyard::plan
