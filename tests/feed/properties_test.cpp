// What must hold for any job: more of anything never feeds the GPUs less.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "feed/example.h"

namespace steelyard::feed {
namespace {

using testing::Example;

Example random_example(std::mt19937_64& random) {
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  Example example;
  facts::Job& job = example.job;
  job.machine.gpus = pick(1, 16);
  job.train.micro_batch = pick(1, 512);
  job.data.kind = static_cast<facts::DataKind>(pick(0, 8));
  job.data.layout = static_cast<facts::DataLayout>(pick(0, 4));
  job.data.shuffle = static_cast<facts::Shuffle>(pick(0, 2));
  job.data.cache = static_cast<facts::DataCache>(pick(0, 3));
  job.data.decode = static_cast<facts::DecodeOn>(pick(0, 1));
  job.data.workers = pick(0, 16);
  job.data.samples = pick(1, 100'000'000);
  job.data.bytes_per_sample = static_cast<double>(pick(1, 10'000'000));
  job.parallel.tensor = pick(1, 8);
  job.parallel.pipeline = pick(1, 4);
  example.sample_bytes = Bytes(pick(0, 50'000'000));
  example.free_for_page_cache = Bytes(pick(0, std::int64_t{1} << 42));
  example.machine.host.cores = {pick(1, 256), facts::Provenance::catalogue};
  example.machine.storage.front().read = {BytesPerSecond(static_cast<double>(pick(1, 100)) * 1e9),
                                          facts::Provenance::catalogue};
  example.needed = SamplesPerSecond(std::exp2(static_cast<double>(pick(-10, 24))));
  return example;
}

// Utilization of the plan; 1 when nothing is known to be short.
double utilization(const Example& example) {
  const auto plan = example.plan();
  EXPECT_TRUE(plan.has_value());
  return plan->accelerator_utilization.value_or(Ratio(1.0)).value();
}

TEST(FeedProperties, utilizationAndWaitAreSharesThatSumToOne) {
  std::mt19937_64 random(20'266);
  for (int i = 0; i < 3'000; ++i) {
    const facts::FeedPlan plan = *random_example(random).plan();
    ASSERT_EQ(plan.accelerator_utilization.has_value(), plan.gpu_wait_fraction.has_value());
    if (!plan.accelerator_utilization) continue;
    ASSERT_GE(plan.accelerator_utilization->value(), 0.0);
    ASSERT_LE(plan.accelerator_utilization->value(), 1.0);
    ASSERT_NEAR(plan.accelerator_utilization->value() + plan.gpu_wait_fraction->value(), 1.0,
                1e-12);
    for (const facts::FeedStage& stage : plan.stages) {
      ASSERT_FALSE(stage.note.empty()) << stage.name;
      ASSERT_GE(stage.ram, Bytes());
      if (stage.can) {
        ASSERT_GT(stage.can->value(), 0.0) << stage.name;
        ASSERT_TRUE(std::isfinite(stage.can->value())) << stage.name;
      }
    }
    if (!plan.limited_by.empty()) {
      ASSERT_LT(plan.accelerator_utilization->value(), 1.0);
    }
  }
}

TEST(FeedProperties, moreOfAnythingNeverFeedsLess) {
  std::mt19937_64 random(20'267);
  for (int i = 0; i < 2'000; ++i) {
    const Example base = random_example(random);
    const double before = utilization(base);
    Example cores = base, storage = base, cache = base, link = base, workers = base;
    cores.machine.host.cores = {*base.machine.host.cores * 2, facts::Provenance::catalogue};
    storage.machine.storage.front().read = {*base.machine.storage.front().read * 2.0,
                                            facts::Provenance::catalogue};
    cache.free_for_page_cache = base.free_for_page_cache * 2;
    link.machine.gpu.host_link = {*base.machine.gpu.host_link * 2.0, facts::Provenance::catalogue};
    if (*base.job.data.workers > 0) workers.job.data.workers = *base.job.data.workers + 1;
    constexpr double kRounding = 1e-12;
    ASSERT_GE(utilization(cores), before - kRounding);
    ASSERT_GE(utilization(storage), before - kRounding);
    ASSERT_GE(utilization(cache), before - kRounding);
    ASSERT_GE(utilization(link), before - kRounding);
    ASSERT_GE(utilization(workers), before - kRounding);
  }
}

TEST(FeedProperties, aSlowerNeedNeverWaitsMore) {
  std::mt19937_64 random(20'268);
  for (int i = 0; i < 1'000; ++i) {
    Example example = random_example(random);
    const double before = utilization(example);
    example.needed = *example.needed / 2.0;
    ASSERT_GE(utilization(example), before - 1e-12);
  }
}

}  // namespace
}  // namespace steelyard::feed
