// `why JOB pace` and its trace: the events are what Chrome's format asks for, those of the GPU
// follow each other and sum to the step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cli/cli.h"
#include "codec/codec.h"
#include "support/process.h"

namespace steelyard::cli {
namespace {

using facts::Value;
using ::testing::HasSubstr;

double number(const Value* value) {
  EXPECT_NE(value, nullptr);
  if (value == nullptr) return 0.0;
  if (const double* real = value->as_real()) return *real;
  const std::int64_t* whole = value->as_whole();
  EXPECT_NE(whole, nullptr);
  return whole == nullptr ? 0.0 : static_cast<double>(*whole);
}

class WhyPace : public ::testing::Test {
 protected:
  WhyPace()
      : folder_(std::filesystem::path(::testing::TempDir()) /
                ("steelyard_why_pace." + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~WhyPace() override { std::filesystem::remove_all(folder_); }

  ExitStatus why(const std::vector<std::string>& more) {
    out_.str("");
    err_.str("");
    const Terminal terminal{
        .out = out_, .err = err_, .colour = false, .columns = 100, .program = {}};
    std::vector<std::string> words = {"why",     "pace",
                                      "--model", "gpt2",
                                      "--gpu",   "a100-sxm-80gb",
                                      "--set",   "machine.ram_gib=64",
                                      "--set",   "train.global_batch=32",
                                      "--set",   "train.micro_batch=4",
                                      "--set",   "machine.gpus=2"};
    words.insert(words.end(), more.begin(), more.end());
    return run(words, terminal);
  }

  std::filesystem::path folder_;
  std::ostringstream out_, err_;
};

TEST_F(WhyPace, TableOfTheStep) {
  EXPECT_EQ(why({"--top", "3"}), ExitStatus::success) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("what a step of the busiest GPU waits for"));
  EXPECT_THAT(out_.str(), HasSubstr("bound by"));
  EXPECT_THAT(out_.str(), HasSubstr("smaller rows"));
  EXPECT_THAT(out_.str(), HasSubstr("Helps"));
}

TEST_F(WhyPace, RowsOfJsonSumToTheStep) {
  EXPECT_EQ(why({"--json"}), ExitStatus::success) << err_.str();
  const auto all = codec::parse(out_.str(), codec::Format::json, "why");
  ASSERT_TRUE(all.has_value());
  const double step = number(all->find("pace")->find("step"));
  double sum = 0.0;
  for (const Value& row : *all->find("rows")->as_array()) sum += number(row.find("step"));
  EXPECT_NEAR(sum, step, 1e-9 * step);
}

TEST_F(WhyPace, TraceIsChromesFormatAndSumsToTheStep) {
  const std::string file = (folder_ / "step.json").string();
  EXPECT_EQ(why({"--timeline", file}), ExitStatus::success) << err_.str();
  std::ifstream in(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const auto trace = codec::parse(text, codec::Format::json, "trace");
  ASSERT_TRUE(trace.has_value()) << to_text(trace.error());
  const double step = number(trace->find("otherData")->find("step_seconds"));
  std::int64_t gpu = 0;
  double sum = 0.0, at = 0.0;
  for (const Value& event : *trace->find("traceEvents")->as_array()) {
    const std::string* kind = event.find("ph")->as_text();
    ASSERT_NE(kind, nullptr);
    ASSERT_NE(event.find("name")->as_text(), nullptr);
    ASSERT_NE(event.find("pid")->as_whole(), nullptr);
    if (*kind == "M") {
      const Value* name = event.find("args")->find("name");
      if (*name->as_text() == "GPU") gpu = *event.find("tid")->as_whole();
      continue;
    }
    ASSERT_EQ(*kind, "X");
    ASSERT_NE(event.find("tid")->as_whole(), nullptr);
    ASSERT_NE(event.find("args")->as_object(), nullptr);
    const double from = number(event.find("ts")), lasts = number(event.find("dur"));
    EXPECT_GE(from, 0.0);
    EXPECT_GE(lasts, 0.0);
    if (*event.find("tid")->as_whole() != gpu) continue;
    EXPECT_NEAR(from, at, 0.01);  // microseconds
    at = from + lasts;
    sum += lasts;
  }
  EXPECT_NEAR(sum * 1e-6, step, 1e-6 * step);
  EXPECT_EQ(why({"--timeline", file + ".gz"}), ExitStatus::success) << err_.str();
  EXPECT_EQ(testing::run_shell("gzip -dc '" + file + ".gz'").out, text);
}

// As Perfetto's importer reads numbers (json_utils.cc, CoerceToTs) and builds tracks
// (slice_tracker.cc): a slice that begins within another one and ends after it is dropped.
void expect_nested(const Value& trace) {
  std::map<std::int64_t, std::vector<std::pair<std::int64_t, std::int64_t>>> tracks;
  std::set<std::int64_t> named;
  constexpr double kNano = 1000.0;
  for (const Value& event : *trace.find("traceEvents")->as_array()) {
    if (*event.find("ph")->as_text() == "M") {
      if (event.find("tid") != nullptr) named.insert(*event.find("tid")->as_whole());
      continue;
    }
    const auto from = static_cast<std::int64_t>(number(event.find("ts")) * kNano);
    const auto lasts = static_cast<std::int64_t>(number(event.find("dur")) * kNano);
    tracks[*event.find("tid")->as_whole()].emplace_back(from, -(from + lasts));
  }
  for (auto& [track, slices] : tracks) {
    EXPECT_TRUE(named.contains(track)) << track;
    std::sort(slices.begin(), slices.end());  // of those that begin together the longest first
    std::vector<std::int64_t> open;
    for (const auto& [from, minus_to] : slices) {
      while (!open.empty() && open.back() <= from) open.pop_back();
      const std::int64_t until = open.empty() ? -minus_to : open.back();
      EXPECT_LE(-minus_to, until) << "track " << track << " at " << from;
      open.push_back(-minus_to);
    }
  }
}

TEST_F(WhyPace, NoSpanOverlapsAnotherOfItsTrack) {
  const std::string examples = std::string(STEELYARD_SOURCE_DIR) + "/examples/";
  const std::string file = (folder_ / "step.json").string();
  for (const char* job : {"large-70b-pipeline", "large-70b-nvme", "llama-3.1-8b-fsdp",
                          "large-70b-zero3-offload", "ppo-pythia-1.4b"}) {
    SCOPED_TRACE(job);
    const Terminal terminal{
        .out = out_, .err = err_, .colour = false, .columns = 100, .program = {}};
    ASSERT_EQ(run({"why", examples + job + ".toml", "pace", "--timeline", file}, terminal),
              ExitStatus::success)
        << err_.str();
    std::ifstream in(file, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    const auto trace = codec::parse(text, codec::Format::json, "trace");
    ASSERT_TRUE(trace.has_value()) << to_text(trace.error());
    expect_nested(*trace);
  }
}

TEST_F(WhyPace, OnlyATraceAndOnlyOfPace) {
  EXPECT_NE(why({"--timeline", (folder_ / "step.html").string()}), ExitStatus::success);
  EXPECT_THAT(err_.str(), HasSubstr(".json.gz"));
  const Terminal terminal{.out = out_, .err = err_, .colour = false, .columns = 100, .program = {}};
  EXPECT_NE(run({"why", "vram", "--model", "gpt2", "--gpu", "a100-sxm-80gb", "--timeline",
                 (folder_ / "a.json").string()},
                terminal),
            ExitStatus::success);
  EXPECT_THAT(err_.str(), HasSubstr("a timeline of vram"));
}

}  // namespace
}  // namespace steelyard::cli
