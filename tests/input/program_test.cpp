// The program itself on broken jobs: exit status 2, nothing on standard output, one clear message.
#include <gtest/gtest.h>

#include "input/broken_files.h"
#include "input/run_program.h"

namespace steelyard {
namespace {

constexpr int kBadInput = 2;

void expect_refusal(const testing::Ran& ran, const std::string& expected, const std::string& what) {
  EXPECT_EQ(ran.status, kBadInput) << what << "\n" << ran.messages;
  EXPECT_TRUE(ran.output.empty()) << what << " printed " << ran.output.substr(0, 80);
  EXPECT_NE(ran.messages.find(expected), std::string::npos)
      << what << "\nsays:     " << ran.messages << "expected: " << expected;
  EXPECT_EQ(ran.messages.find("terminate called"), std::string::npos) << ran.messages;
}

class BrokenJobs : public ::testing::TestWithParam<const char*> {};

TEST_P(BrokenJobs, ArePlannedWithStatusTwoAndOneMessage) {
  const auto files = testing::broken_files(GetParam());
  EXPECT_GE(files.size(), 10U);
  for (const auto& file : files) {
    const auto ran = testing::run_steelyard({"plan", file.path.string(), "--json"});
    expect_refusal(ran, file.expected, file.path.string());
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, BrokenJobs,
                         ::testing::Values("job_toml", "job_json", "job_refused"),
                         [](const auto& kind) { return std::string(kind.param); });

// The files a job names, given on the command line.
TEST(BrokenFilesOfAJob, AreRefusedByThePlan) {
  for (const auto& file : testing::broken_files("model_config")) {
    expect_refusal(testing::run_steelyard({"plan", "--model", file.path.string(), "--gpu",
                                           "h100-sxm-80gb", "--gpus", "1"}),
                   file.expected, file.path.string());
  }
  for (const auto& file : testing::broken_files("machine_file")) {
    expect_refusal(
        testing::run_steelyard({"plan", "--model", "gpt2", "--machine", file.path.string()}),
        file.expected, file.path.string());
  }
}

TEST(BrokenFilesOfCases, AreRefusedByValidate) {
  for (const auto& file : testing::broken_files("cases_file")) {
    expect_refusal(testing::run_steelyard({"validate", file.path.string()}), file.expected,
                   file.path.string());
  }
}

TEST(BrokenJobFiles, DirectoriesHugeAndMissingFilesAreRefused) {
  const TemporaryFolder folder;
  const auto huge = folder.write("huge.toml", "x");
  std::filesystem::resize_file(huge, std::uintmax_t{1} << 30);
  for (const char* command : {"plan", "explain", "validate"}) {
    expect_refusal(testing::run_steelyard({command, huge.string()}), "1073741824 bytes", command);
    expect_refusal(testing::run_steelyard({command, (folder.path() / "missing.toml").string()}),
                   "no such file", command);
  }
  expect_refusal(testing::run_steelyard({"plan", folder.path().string()}), "a directory", "plan");
}

TEST(BrokenSettings, AreRefusedWithStatusTwo) {
  const std::string job = STEELYARD_SOURCE_DIR "/examples/llama-3.1-8b-fsdp.toml";
  const struct {
    const char* setting;
    const char* expected;
  } cases[] = {{"train.micro_batch=0", "--set: train.micro_batch: found 0"},
               {"train.micro_batchs=4", "did you mean train.micro_batch?"},
               {"train.micro_batch", "KEY=VALUE"},
               {"train.image_size=[1", "TOML"},
               {"train.precision=bf15-mixed", "did you mean"}};
  for (const auto& c : cases) {
    expect_refusal(testing::run_steelyard({"plan", job, "--set", c.setting}), c.expected,
                   c.setting);
  }
}

}  // namespace
}  // namespace steelyard
