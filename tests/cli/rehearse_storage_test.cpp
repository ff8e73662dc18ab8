// MLPerf Storage from the command line: a data set made up, rehearsed with its preset, a checkpoint
// written and read back; what a signal leaves behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "support/process.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using testing::Outcome;
using testing::run_shell;

namespace fs = std::filesystem;

class RehearseStorage : public ::testing::Test {
 protected:
  RehearseStorage()
      : folder_(fs::path(::testing::TempDir()) /
                ("steelyard_storage." + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~RehearseStorage() override { fs::remove_all(folder_); }

  [[nodiscard]] Outcome rehearse(const std::string& arguments) const {
    return run_shell("exec 2>&1; cd '" + folder_.string() + "'; '" + STEELYARD_PROGRAM +
                     "' rehearse " + arguments);
  }
  [[nodiscard]] const fs::path& folder() const { return folder_; }

 private:
  fs::path folder_;
};

TEST_F(RehearseStorage, GeneratesADataSetAndRehearsesIt) {
  const Outcome made = rehearse("--generate data --preset cosmoflow/h100 --size 12MB");
  ASSERT_EQ(made.status, 0) << made.out;
  // 12,000,000 / 2,828,486 = 4.2
  EXPECT_THAT(made.out, HasSubstr("Wrote 4 files of cosmoflow/h100 into data: 4 samples"));
  EXPECT_THAT(made.out, HasSubstr("One accelerator takes 808 MB/s (1 sample in 3.5 ms)"));
  EXPECT_THAT(made.out, HasSubstr("less than 5 x"));
  EXPECT_THAT(made.out, HasSubstr("MLPerf Storage asks for 500"));
  const Outcome again = rehearse("--generate data --preset cosmoflow/h100 --size 12MB");
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.out, HasSubstr("an empty or a new folder"));
  const Outcome run = rehearse("--data data --preset cosmoflow/h100 --seconds 1 --workers 1");
  ASSERT_EQ(run.status, 0) << run.out;
  EXPECT_THAT(run.out, HasSubstr("cosmoflow/h100 asks for a mean utilization of 70 %"));
  EXPECT_THAT(run.out, HasSubstr("less than 5 x"));
}

TEST_F(RehearseStorage, WritesACheckpointAndLeavesNothing) {
  const Outcome run = rehearse("--checkpoint llama3-8b --path . --size 16MiB --json");
  ASSERT_EQ(run.status, 0) << run.out;
  EXPECT_THAT(run.out, HasSubstr("\"schema\": \"steelyard.checkpoint-run/1\""));
  EXPECT_THAT(run.out, HasSubstr("\"checkpoint\": \"llama3-8b\""));
  EXPECT_THAT(run.out, HasSubstr("\"bytes\": 16777216"));
  EXPECT_TRUE(fs::is_empty(folder()));
  const Outcome text = rehearse("--checkpoint llama3-405b --size 8MiB");
  EXPECT_THAT(text.out, HasSubstr("Checkpoint of llama3-405b: 8.0 MiB by 8 ranks"));
}

TEST_F(RehearseStorage, SaysOneFileAndTheSchemaOfItsJson) {
  const Outcome one = rehearse("--generate one --preset cosmoflow/h100 --size 3MB");
  ASSERT_EQ(one.status, 0) << one.out;
  EXPECT_THAT(one.out, HasSubstr("Wrote 1 file of cosmoflow/h100 into one: 1 sample,"));
  const Outcome json = rehearse("--generate two --preset cosmoflow/h100 --size 3MB --json");
  EXPECT_THAT(json.out, HasSubstr("\"schema\": \"steelyard.generated/1\""));
  EXPECT_THAT(json.out, HasSubstr("\"files\": 1,"));
}

TEST_F(RehearseStorage, WhatIsMissingOrUnknownIsSaid) {
  EXPECT_THAT(rehearse("--generate data --size 1GiB").out, HasSubstr("--preset: found nothing"));
  EXPECT_THAT(rehearse("--generate data --preset unet3d/h100").out,
              HasSubstr("--size: found nothing"));
  EXPECT_THAT(rehearse("--generate data --preset bert --size 1GiB").out, HasSubstr("unet3d/h100"));
  EXPECT_THAT(rehearse("--checkpoint llama2 --size 1GiB").out, HasSubstr("llama3-70b"));
  EXPECT_THAT(rehearse("--checkpoint llama3-8b --size many").out, HasSubstr("20GiB"));
  EXPECT_THAT(rehearse("--checkpoint llama3-8b --generate data --size 1GiB").out,
              HasSubstr("one of them"));
  EXPECT_TRUE(fs::is_empty(folder()));
}

// SIGTERM in the middle: an error status, whole files or none, nothing hidden. The signal is sent
// when the first file is being written.
TEST_F(RehearseStorage, ASignalLeavesNothingUnfinished) {
  const auto interrupted = [&](const std::string& arguments, const std::string& until) {
    return rehearse(arguments + " & pid=$!; while kill -0 $pid && ! ls -A " + until +
                    " | grep -q .; do sleep 0.02; done 2>/dev/null; kill -TERM $pid; wait $pid");
  };
  const Outcome made =
      interrupted("--generate data --preset resnet50/h100 --size 300MB --io-threads 1", "data");
  EXPECT_EQ(made.status, 2) << made.out;
  EXPECT_THAT(made.out, HasSubstr("stopped by a signal"));
  for (const auto& entry : fs::recursive_directory_iterator(folder())) {
    EXPECT_FALSE(entry.path().filename().string().starts_with('.')) << entry.path();
  }
  fs::remove_all(folder() / "data");
  const Outcome written =
      interrupted("--checkpoint llama3-8b --size 8MiB --rounds 1000", "steelyard-checkpoint.*");
  EXPECT_EQ(written.status, 2) << written.out;
  EXPECT_THAT(written.out, HasSubstr("stopped"));
  EXPECT_TRUE(fs::is_empty(folder()));
}

}  // namespace
}  // namespace steelyard
