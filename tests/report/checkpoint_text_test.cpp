#include "report/checkpoint_text.h"

#include <gtest/gtest.h>

namespace steelyard::report {
namespace {

using namespace literals;

TEST(CheckpointText, RatesOfTheRoundsAndWhatToKnow) {
  facts::CheckpointRun run;
  run.workload = "llama3-8b";
  run.whole = 105_GiB;
  run.bytes = 2_GB;
  run.ranks = 8;
  run.threads = 4;
  run.writes = {2_s, 2_s};
  run.syncs = {500_ms, 250_ms};
  run.reads = {1_s, Seconds(0.5)};
  run.memory = 20_MiB;
  run.remarks = {"the page cache was dropped between write and read"};
  EXPECT_EQ(checkpoint_text(run),
            "Checkpoint of llama3-8b: 1.9 GiB by 8 ranks, 4 at a time\n"
            "  write      1 GB/s       2 s  (1 GB/s to 1 GB/s in 2 rounds)  fsync included, "
            "at most 500 ms of one file\n"
            "  read    2.67 GB/s    750 ms  (2 GB/s to 4 GB/s in 2 rounds)\n"
            "  memory of the rehearsal 20.0 MiB\n"
            "  Note: the page cache was dropped between write and read.\n");
}

}  // namespace
}  // namespace steelyard::report
