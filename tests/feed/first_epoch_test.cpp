// The first epoch, in which no cache holds anything, against those that follow; and what loaders
// suffice.
#include <gtest/gtest.h>

#include "feed/example.h"

namespace steelyard::feed {
namespace {

using testing::Example;
using testing::stage;

// Records that need no decoding, one GPU, a drive of 1 GB/s and memory of 409.6 GB/s.
Example from_storage() {
  Example example;
  example.job.machine.gpus = 1;
  example.job.data.kind = facts::DataKind::npz;
  example.job.data.layout = facts::DataLayout::tfrecord;
  example.job.data.samples = 1'000'000;
  example.job.data.bytes_per_sample = 100'000;
  example.sample_bytes = Bytes(100'000);
  example.machine.storage.front().read = {BytesPerSecond(1e9), facts::Provenance::catalogue};
  example.constants.assemble_per_byte = Seconds(1e-15);
  example.constants.thread_copy = BytesPerSecond(1e15);
  example.constants.decode_seconds_per_byte["npz"] = 1e-18;
  return example;
}

// DS-Analyzer: seconds of an epoch = c / memory rate + (D - c) / disk rate.
double epoch_seconds(double cached, double dataset) {
  return cached / 409.6e9 + (dataset - cached) / 1e9;
}

// 100 GB on a machine with 200 GB left: the first epoch is read from the drive, later ones are
// bound by memory.
TEST(CacheRegimes, aDatasetThatFitsIsReadOnce) {
  Example example = from_storage();
  example.free_for_page_cache = Bytes(200'000'000'000);
  const facts::FeedPlan plan = *example.plan();
  EXPECT_NEAR(1e6 / stage(plan, "storage").can_at_first->value(), epoch_seconds(0, 1e11), 0.01);
  EXPECT_NEAR(1e6 / stage(plan, "storage").can->value(), epoch_seconds(1e11, 1e11), 0.01);
  EXPECT_NEAR(1e6 / plan.first_epoch.supply->value(), 100.0, 0.1);
  EXPECT_GT(*plan.supply, *plan.first_epoch.supply * 10.0);
}

// 40 GB left: a cache that never replaces what it holds would serve 40 %, and the formula with
// what an LRU cache serves, 0.4 + 0.6 ln 0.6 = 9.35 %, is the epoch; in order nothing is served.
TEST(CacheRegimes, aDatasetThatDoesNotFitIsReadAgain) {
  Example example = from_storage();
  example.free_for_page_cache = Bytes(40'000'000'000);
  example.job.data.shuffle = facts::Shuffle::sample;
  const double served = 0.4 + 0.6 * std::log(0.6);
  const double seconds = 1e6 / stage(*example.plan(), "storage").can->value();
  EXPECT_NEAR(seconds, epoch_seconds(served * 1e11, 1e11), 0.01);
  EXPECT_GT(seconds, epoch_seconds(0.4e11, 1e11));
  example.job.data.shuffle = facts::Shuffle::none;
  EXPECT_NEAR(1e6 / stage(*example.plan(), "storage").can->value(), epoch_seconds(0, 1e11), 0.01);
}

TEST(FirstEpoch, aCacheOfDecodedSamplesIsFilledByDecoding) {
  Example example;
  example.job.data.cache = facts::DataCache::ram;
  example.needed = SamplesPerSecond(20'000);
  const facts::FeedPlan plan = *example.plan();
  EXPECT_EQ(plan.limited_by, "");
  EXPECT_EQ(plan.first_epoch.limited_by, "decode");
  EXPECT_FALSE(stage(plan, "decode").can);
  EXPECT_NEAR(stage(plan, "decode").can_at_first->value(), 16'995, 10);
}

// A drive that answers after 10 ms: eight readers of one rank wait for eight files at once.
TEST(Storage, aSlowAnswerIsHiddenByManyReaders) {
  Example example;
  example.job.machine.gpus = 1;
  example.job.data.cache = facts::DataCache::none;
  example.constants.storage_latency = {{"nvme", 0.01}};
  const double one = 0.01 + 110'000 / 10e9;
  EXPECT_NEAR(stage(*example.plan(), "storage").can->value(), 8 / one, 1e-6);
  // Each also decodes and collates, 3.766 ms, on a core of its own.
  EXPECT_NEAR(example.plan()->supply->value(), 8 / (one + 0.003766), 0.1);
}

// 266 images/s of each worker: the need of 1,500 takes six, that of 40,000 no number.
TEST(Loaders, whatSuffices) {
  Example example;
  example.job.machine.gpus = 1;
  example.needed = SamplesPerSecond(1'500);
  EXPECT_EQ(example.plan()->workers_enough, 6);
  EXPECT_EQ(example.plan()->prefetch_enough, 1);
  example.needed = SamplesPerSecond(40'000);
  EXPECT_EQ(example.plan()->workers_enough, std::nullopt);
  // The fewest that suffice do, one fewer does not.
  example.needed = SamplesPerSecond(2'500);
  const std::int64_t enough = *example.plan()->workers_enough;
  example.job.data.workers = enough;
  EXPECT_EQ(example.plan()->limited_by, "");
  example.job.data.workers = enough - 1;
  EXPECT_EQ(example.plan()->limited_by, "decode");
}

// Samples that differ make full buffers worth something.
TEST(Loaders, spreadCostsSupply) {
  Example example;
  example.job.machine.gpus = 1;
  example.job.train.micro_batch = 4;
  EXPECT_EQ(example.plan()->spread_loss, Ratio(0.0));
  example.constants.sample_spread = {{"jpeg", 0.5}};
  EXPECT_GT(*example.plan()->spread_loss, Ratio(0.02));
  EXPECT_GT(*example.plan()->prefetch_enough, 2);
}

// A rank's own process has a core while its GPU computes: eight cores for eight ranks leave the
// workers what the ranks do not use while they wait.
TEST(Cores, ranksThatWaitLeaveTheirs) {
  Example example;
  example.machine.host.cores = {8, facts::Provenance::catalogue};
  example.needed = SamplesPerSecond(4'000);
  // t = 3.766 ms, s = 0.015 ms, the GPU 8 / 4,000 s: 8 / 5.781 ms = 1,384 per second.
  EXPECT_NEAR(example.plan()->supply->value(), 1'384, 15);
  EXPECT_NEAR(example.plan()->accelerator_utilization->value(), 0.346, 0.004);
}

}  // namespace
}  // namespace steelyard::feed
