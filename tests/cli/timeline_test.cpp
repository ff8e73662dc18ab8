// `plan --timeline FILE` writes a page or a trace, whole or not at all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "cli/cli.h"
#include "support/process.h"

namespace steelyard::cli {
namespace {

using ::testing::HasSubstr;

class Timeline : public ::testing::Test {
 protected:
  Timeline()
      : folder_(std::filesystem::path(::testing::TempDir()) /
                ("steelyard_timeline." + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~Timeline() override { std::filesystem::remove_all(folder_); }

  ExitStatus plan(const std::string& timeline) {
    out_.str("");
    err_.str("");
    const Terminal terminal{
        .out = out_, .err = err_, .colour = false, .columns = 100, .program = {}};
    return run({"plan", "--model", "gpt2", "--gpu", "rtx-3090", "--set", "machine.ram_gib=64",
                "--set", "train.sequence_length=64", "--timeline", timeline},
               terminal);
  }
  std::string content(const std::string& name) const {
    std::ifstream in(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

  std::filesystem::path folder_;
  std::ostringstream out_, err_;
};

TEST_F(Timeline, PageAndTrace) {
  EXPECT_EQ(plan((folder_ / "a.html").string()), ExitStatus::success) << err_.str();
  EXPECT_THAT(content("a.html"), HasSubstr("transformer.h.11"));
  EXPECT_EQ(plan((folder_ / "a.json").string()), ExitStatus::success) << err_.str();
  EXPECT_THAT(content("a.json"), HasSubstr("traceEvents"));
  EXPECT_EQ(plan((folder_ / "a.json.gz").string()), ExitStatus::success) << err_.str();
  const auto packed = folder_ / "a.json.gz";
  EXPECT_EQ(testing::run_shell("gzip -dc '" + packed.string() + "'").out, content("a.json"));
  EXPECT_EQ(files(), 3U);  // nothing half written beside them
}

TEST_F(Timeline, RefusesWhatItCannotWrite) {
  EXPECT_EQ(plan((folder_ / "a.txt").string()), ExitStatus::bad_input);
  EXPECT_THAT(err_.str(), HasSubstr(".html, .json or .json.gz"));
  EXPECT_EQ(plan((folder_ / "none" / "a.html").string()), ExitStatus::bad_input);
  EXPECT_THAT(err_.str(), HasSubstr("cannot be written"));
  EXPECT_EQ(out_.str(), "");
  EXPECT_EQ(files(), 0U);
}

// The file may stand before the job.
TEST_F(Timeline, WhatFollowsTheFileIsTheJob) {
  const auto job = folder_ / "job.toml";
  std::ofstream(job) << "[model]\nconfig = \"gpt2\"\n[machine]\ngpu = \"rtx-3090\"\nram_gib = 64\n"
                        "[train]\nsequence_length = 64\n";
  const Terminal terminal{.out = out_, .err = err_, .colour = false, .columns = 100, .program = {}};
  const ExitStatus status =
      run({"plan", "--timeline", (folder_ / "a.html").string(), job.string()}, terminal);
  EXPECT_EQ(status, ExitStatus::success) << err_.str();
  EXPECT_THAT(content("a.html"), HasSubstr("transformer.h.11"));
}

// `plan --timeline job.json`: the job is not written over.
TEST_F(Timeline, RefusesToWriteOverAnotherFile) {
  std::ofstream(folder_ / "job.json") << R"({"train": {}})";
  EXPECT_EQ(plan((folder_ / "job.json").string()), ExitStatus::bad_input);
  EXPECT_THAT(err_.str(), HasSubstr("is no trace"));
  EXPECT_EQ(content("job.json"), R"({"train": {}})");
}

}  // namespace
}  // namespace steelyard::cli
