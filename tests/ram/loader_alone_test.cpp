// Host memory of a loader that runs alone: its own buffers.
#include <gtest/gtest.h>

#include "ram/example.h"
#include "ram/loader_alone.h"

namespace steelyard::ram {
namespace {

facts::LoaderProfile profile() {
  facts::LoaderProfile loader;
  loader.name = "rehearsal";
  loader.alone = true;
  loader.process = Bytes(8 << 20);
  loader.per_worker = Bytes(1 << 20);
  loader.per_thread = Bytes(64 << 10);
  loader.page = Bytes(2 << 20);
  loader.index_per_sample = Bytes(24);
  loader.other_threads = 2;
  loader.depth = 32;
  loader.slot_deviations = 2.05;
  return loader;
}

TEST(LoaderAlone, HoldsItsBuffersAndNoModel) {
  testing::Example example;
  example.constants.loader = profile();
  example.job.machine.gpus = 2;
  example.job.train.micro_batch = 32;
  example.job.data.workers = 2;
  example.job.data.prefetch = 4;
  example.job.data.samples = 1000;
  example.job.data.bytes_per_sample = 100'000;
  example.job.data.bytes_deviation = 10'000;
  example.sample_bytes = Bytes(150'528);
  const auto plan = example.plan();
  ASSERT_TRUE(plan) << to_text(plan.error());
  const LoaderMemory memory =
      loader_memory(*example.constants.loader, example.job, example.sample_bytes);
  // 2 x 4 x 32 x 150,528 B = 38,535,168 B in 19 pages; 36 slots of 120,500 B in three.
  EXPECT_EQ(memory.batches, Bytes(19 * (2 << 20)));
  EXPECT_EQ(memory.read_buffers, Bytes(3 * (2 << 20)));
  EXPECT_EQ(memory.index, Bytes(24'000));
  EXPECT_EQ(memory.threads, Bytes(4 * (1 << 20) + 4 * (64 << 10)));
  EXPECT_EQ(plan->peak, example.constants.system + memory.total());
}

}  // namespace
}  // namespace steelyard::ram
