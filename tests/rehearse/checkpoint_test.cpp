#include "rehearse/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rehearse/scratch.h"

namespace steelyard::rehearse {
namespace {

using namespace literals;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::Scratch;
using ::testing::SizeIs;

namespace fs = std::filesystem;

facts::CheckpointWorkload llama3_8b() {
  facts::CheckpointWorkload workload;
  workload.id = "llama3-8b";
  workload.hidden = 4096;
  workload.feed_forward = 14336;
  workload.layers = 32;
  workload.heads = 32;
  workload.kv_heads = 8;
  workload.vocabulary = 128'256;
  workload.data_parallel = 8;
  return workload;
}

const facts::StorageRules kRules = {
    .memory_times = 5, .epoch_steps = 500, .checkpoint_memory = 3, .source = ""};

// 512 ranks of 10.3 GiB each: those of a part keep that size as long as there are eight.
TEST(Checkpoint, APartHasFewerRanksOfTheRealSize) {
  facts::CheckpointWorkload large = llama3_8b();
  large.data_parallel = 512;
  EXPECT_EQ(ranks_for(large, 2_GiB), 10);  // 512 * 2 / 104.7 = 9.8
  EXPECT_EQ(ranks_for(large, 1_GiB), 8);
  EXPECT_EQ(ranks_for(large, 500_GiB), 512);
  EXPECT_EQ(ranks_for(llama3_8b(), 1_GiB), 8);
}

TEST(Checkpoint, WritesReadsBackAndCleansUp) {
  const Scratch scratch;
  const Result<facts::CheckpointRun> run =
      rehearse_checkpoint(llama3_8b(), kRules, scratch.path(),
                          {.size = 24_MiB, .rounds = 2, .threads = 3, .memory = 1_GiB});
  ASSERT_TRUE(run) << to_text(run.error());
  EXPECT_EQ(run->bytes, 24_MiB);
  EXPECT_EQ(run->ranks, 8);
  EXPECT_EQ(run->threads, 3);
  EXPECT_EQ(run->memory, 16_MiB);  // the shared buffer and one for each thread that reads
  EXPECT_THAT(run->writes, SizeIs(2));
  EXPECT_THAT(run->reads, SizeIs(2));
  EXPECT_TRUE(run->caches_dropped);
  for (const Seconds seconds : run->writes) EXPECT_GT(seconds.value(), 0);
  ASSERT_THAT(run->remarks, SizeIs(3));
  EXPECT_EQ(run->remarks[0], "24.0 MiB of 104.7 GiB: 8 ranks of 3.0 MiB each");
  // A file system in memory cannot drop its cache: then that is said.
  EXPECT_THAT(run->remarks[1], AnyOf(HasSubstr("was dropped"), HasSubstr("in the page cache")));
  EXPECT_THAT(run->remarks[2], HasSubstr("10 writes and 10 reads"));
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

TEST(Checkpoint, RefusesWhatDoesNotFit) {
  const Scratch scratch;
  const auto code = [&](const fs::path& folder, CheckpointOptions options) {
    const Result<facts::CheckpointRun> run =
        rehearse_checkpoint(llama3_8b(), kRules, folder, options);
    return run ? ErrorCode::internal : run.error().code;
  };
  EXPECT_EQ(code(scratch.path(), {.size = 1_KiB, .memory = 1_GiB}), ErrorCode::bad_input);
  EXPECT_EQ(code(scratch.path(), {.size = 200_GiB, .memory = 1_GiB}), ErrorCode::bad_input);
  EXPECT_EQ(code(scratch.path(), {.size = 1_MiB, .rounds = 0, .memory = 1_GiB}),
            ErrorCode::bad_input);
  EXPECT_EQ(code(scratch.path() / "no", {.size = 1_MiB, .memory = 1_GiB}), ErrorCode::unreadable);
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

TEST(Checkpoint, StoppedItLeavesNothing) {
  const Scratch scratch;
  const std::atomic<bool> stop = true;
  const Result<facts::CheckpointRun> run = rehearse_checkpoint(
      llama3_8b(), kRules, scratch.path(), {.size = 24_MiB, .memory = 1_GiB, .stop = &stop});
  ASSERT_FALSE(run);
  EXPECT_EQ(run.error().found, "stopped");
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

}  // namespace
}  // namespace steelyard::rehearse
