// The mission's situations (examples/): each is named by the verdict, with the sentence a person
// would say; and `why` tells where host memory goes and what the GPUs wait for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "cli/cli.h"

namespace steelyard::cli {
namespace {

using ::testing::HasSubstr;

std::string printed(std::vector<std::string> arguments, const std::string& example) {
  const auto path = std::filesystem::path(STEELYARD_SOURCE_DIR) / "examples" / (example + ".toml");
  for (std::string& argument : arguments) {
    if (argument == "JOB") argument = path.string();
  }
  std::ostringstream out, err;
  const Terminal terminal{.out = out, .err = err, .colour = false, .columns = 300, .program = {}};
  (void)run(arguments, terminal);
  EXPECT_EQ(err.str(), "");
  return out.str();
}

struct Situation {
  std::string example;
  std::string verdicts;  // as in the plan's JSON
  std::string sentence;
};

class Situations : public ::testing::TestWithParam<Situation> {};

TEST_P(Situations, AreNamed) {
  const std::string json = printed({"plan", "JOB", "--json"}, GetParam().example);
  std::string packed;
  for (const char c : json) {
    if (c != ' ' && c != '\n') packed += c;
  }
  EXPECT_THAT(packed, HasSubstr("\"verdict\":[" + GetParam().verdicts + "]"));
  EXPECT_THAT(json, HasSubstr(GetParam().sentence));
}

INSTANTIATE_TEST_SUITE_P(
    Mission, Situations,
    ::testing::Values(
        Situation{"ram-full-vram-idle-per-rank-load", R"("vram_idle","ram_short")",
                  "each host lacks"},
        Situation{"vram-short-ram-ample-13b", R"("vram_short","ram_idle")", "each GPU lacks"},
        Situation{"starved-by-decoding-resnet50", R"("vram_idle","ram_idle","starved_by_cpu")",
                  "of the time for JPEG decoding: 8 workers per GPU give"},
        Situation{"starved-by-storage-unet3d", R"("vram_idle","starved_by_storage")",
                  "of the time for network storage: it gives"},
        Situation{"data-heavy-video", R"("vram_idle","starved_by_cpu")",
                  "of the time for video decoding: 2 workers per GPU give"},
        Situation{"large-70b-pipeline", R"("ram_idle")", "page cache included"},
        Situation{"entry-bert-squad-16gb", R"("balanced")", "neither is short"},
        Situation{"entry-gpt2-over-bought", R"("vram_idle","ram_idle")", "stay empty"}));

TEST(Why, RamPhaseByPhase) {
  const std::string text = printed({"why", "JOB", "ram"}, "starved-by-decoding-resnet50");
  EXPECT_THAT(text, HasSubstr("loader workers"));
  EXPECT_THAT(text, HasSubstr("pinned allocator"));
  const std::string json = printed({"why", "JOB", "ram", "--json"}, "starved-by-decoding-resnet50");
  EXPECT_THAT(json, HasSubstr("\"phases\""));
}

TEST(Why, FeedStageByStage) {
  const std::string text = printed({"why", "JOB", "feed"}, "starved-by-decoding-resnet50");
  EXPECT_THAT(text, HasSubstr("limited by decode"));
  EXPECT_THAT(text, HasSubstr("no number of workers is enough"));
}

TEST(Why, BindsRanksToSockets) {
  const std::string text =
      printed({"why", "ram", "--model", "gpt2", "--machine", "aws:p5.48xlarge"}, "");
  EXPECT_THAT(text, HasSubstr("rank 0: numactl --cpunodebind=0 --membind=0"));
  EXPECT_THAT(text, HasSubstr("rank 7: numactl --cpunodebind=1 --membind=1"));
}

}  // namespace
}  // namespace steelyard::cli
