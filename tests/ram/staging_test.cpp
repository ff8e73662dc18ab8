// Loading and checkpoints, by hand and against published reports.
#include "ram/staging.h"

#include <gtest/gtest.h>

#include "ram/example.h"

namespace steelyard::ram {
namespace {

using facts::CheckpointLoad;
using facts::CheckpointMethod;
using facts::RamCategory;
using facts::RamPhase;
using testing::Example;
using testing::phase;
using namespace literals;

Bytes loading(const Example& example) {
  const auto plan = example.plan();
  EXPECT_TRUE(plan.has_value()) << to_text(plan.error());
  return phase(*plan, RamPhase::load)[RamCategory::model_load];
}

Bytes staging(const Example& example) {
  const auto plan = example.plan();
  EXPECT_TRUE(plan.has_value()) << to_text(plan.error());
  return phase(*plan, RamPhase::checkpoint)[RamCategory::checkpoint_staging];
}

// Orbax: twice the state in ordinary memory instead of a page-locked snapshot of 4/3.
TEST(Checkpoint, aLibraryThatWritesFromCopiesOfItsOwn) {
  Example example;
  example.job.checkpoint.every_steps = 100;
  example.job.checkpoint.method = CheckpointMethod::sharded_async;
  const Bytes pinned = staging(example);
  example.words = {{"staging_copies", "2"}};
  EXPECT_NEAR(staging(example).real(), pinned.real() * 1.5, 16.0);
}

// Parameters 4e9 B, one block 100 MB, file shards of 5 GB, eight ranks.
TEST(Loading, eachWay) {
  Example example;
  example.job.checkpoint.load = CheckpointLoad::mmap;
  EXPECT_EQ(loading(example), Bytes(8 * 100'000'000));
  example.job.checkpoint.load = CheckpointLoad::meta;
  EXPECT_EQ(loading(example), Bytes());
  example.job.checkpoint.load = CheckpointLoad::rank0;
  EXPECT_EQ(loading(example), 8_GB);  // the state and its only file shard
  example.job.checkpoint.load = CheckpointLoad::per_rank;
  EXPECT_EQ(loading(example), 64_GB);
}

// Two fp16 copies of 7e9 parameters: 28 GB on one rank. Catalogue machines with 4, 23 and 24 GB of
// host memory must not pass (facts G8).
TEST(Loading, plainFromPretrainedKeepsTwoCopies) {
  Example example;
  example.words = {{"load_copies", "2"}};
  example.job.checkpoint.load = CheckpointLoad::per_rank;
  example.job.machine.gpus = 1;
  example.set_parameters(7'000'000'000, 2, false);
  EXPECT_EQ(loading(example), 28_GB);
  for (const Bytes memory : {4_GB, 23_GB, 24_GB}) EXPECT_GT(example.plan()->peak, memory);
}

// Lit-GPT issue 456: Llama-2-70B in bf16, every rank loads the full model (138 GB): eight ranks
// need over 1 TB and die on a machine of about 1 TB, six work.
TEST(Loading, eightRanksOf70BExceedATerabyteAndSixDoNot) {
  Example example;
  example.job.framework = "litgpt";
  example.job.parallel.sharding = facts::Sharding::fsdp1;
  example.job.checkpoint.load = CheckpointLoad::per_rank;
  example.set_parameters(68'976'648'192, 2, false);
  const Bytes memory(std::int64_t{1000} << 30);
  EXPECT_GT(phase(*example.plan(), RamPhase::load).total(), memory);
  example.job.machine.gpus = 6;
  EXPECT_LT(phase(*example.plan(), RamPhase::load).total(), memory);
}

// transformers, FSDP with cpu_ram_efficient_loading: the process of rank 0 peaks at 34,334,572,544
// B while it loads Llama-2-7B in fp32: 26.95 GB of weights, one file shard, and the process.
TEST(Loading, rankZeroOfLlama2AsMeasured) {
  Example example;
  example.job.framework = "transformers";
  example.job.parallel.sharding = facts::Sharding::fsdp1;
  example.job.checkpoint.load = CheckpointLoad::rank0;
  example.job.machine.gpus = example.job.parallel.data = 2;
  example.set_parameters(6'738'415'616, 4, false);
  const Bytes process = loading(example) + example.constants.process;
  EXPECT_NEAR(process.real() / 34'334'572'544.0, 1.0, 0.05);
}

// Parameters 4e9 + optimizer 8e9 = 12e9 B, eight ranks.
TEST(Checkpoint, eachMethodOfAShardedJob) {
  Example example;
  example.job.parallel.sharding = facts::Sharding::fsdp;
  example.job.checkpoint.method = CheckpointMethod::sync;
  EXPECT_EQ(staging(example), 12_GB);
  example.job.checkpoint.method = CheckpointMethod::async;
  EXPECT_EQ(staging(example), 16_GB);  // 4/3
  example.job.checkpoint.method = CheckpointMethod::sharded_sync;
  EXPECT_EQ(staging(example), 12_GB);  // 1.5e9 B per rank, below one file shard
  example.job.checkpoint.method = CheckpointMethod::sharded_async;
  EXPECT_EQ(staging(example), 16_GB);
}

TEST(Checkpoint, partsAreSharedByAllNodes) {
  Example example;
  example.job.parallel.sharding = facts::Sharding::fsdp;
  example.job.checkpoint.method = CheckpointMethod::sharded_async;
  example.job.machine.nodes = 4;
  EXPECT_EQ(staging(example), 4_GB);
}

TEST(Checkpoint, aWholeStateIsWrittenTensorByTensor) {
  Example example;
  example.job.checkpoint.method = CheckpointMethod::sync;
  EXPECT_EQ(staging(example), 5_GB);
}

TEST(Checkpoint, loraSavesItsAdaptersOnly) {
  Example example;
  example.job.parallel.sharding = facts::Sharding::fsdp;
  example.job.train.method = facts::Method::lora;
  example.states.trainable = Parameters(10'000'000);  // 1 % of the parameters
  example.states.trainable_bytes = Bytes(40'000'000);
  example.states.optimizer_bytes = Bytes(80'000'000);
  EXPECT_EQ(staging(example), Bytes(40'000'000 + 80'000'000));
}

TEST(Checkpoint, noneWhileTraining) {
  Example example;
  example.job.checkpoint.every_steps.reset();
  const auto plan = example.plan();
  EXPECT_EQ(phase(*plan, RamPhase::checkpoint).total(), phase(*plan, RamPhase::steady).total());
}

}  // namespace
}  // namespace steelyard::ram
