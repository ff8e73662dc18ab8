// `steelyard calibrate` on a few measured steps: what it prints and writes, the same every time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "catalog/catalog.h"
#include "cli/cli.h"
#include "codec/codec.h"

namespace steelyard::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Calibrate : public ::testing::Test {
 protected:
  Calibrate()
      : folder_(std::filesystem::path(::testing::TempDir()) /
                ("steelyard_calibrate." + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
    std::ofstream out(folder_ / "steps.json");
    out << R"({"schema": "steelyard.cases/1", "source": {"title": "made up"}, "cases": [)";
    for (int i = 1; i <= 10; ++i) {
      out << (i == 1 ? "" : ",") << R"({"id": "made-up-)" << i
          << R"(", "job": {"framework": "pytorch", "model": {"config": "gpt2"}, "train": {)"
          << R"("sequence_length": 128, "precision": "bf16-mixed", "micro_batch": )" << i
          << R"(}, "machine": {"gpu": "a100-sxm-80gb", "gpus": 1, "ram_gib": 64}}, "measured": )"
          << R"({"step_seconds": )" << 0.05 + 0.004 * i << R"(}, "confidence": "high"})";
    }
    // Faster than the card can multiply: left out.
    out << R"(,{"id": "impossible", "job": {"framework": "pytorch", "model": {"config": "gpt2"},)"
        << R"("train": {"sequence_length": 128, "precision": "bf16-mixed", "micro_batch": 8},)"
        << R"("machine": {"gpu": "a100-sxm-80gb", "gpus": 1, "ram_gib": 64}}, "measured": )"
        << R"({"step_seconds": 1e-5}, "confidence": "high"}]})";
  }
  ~Calibrate() override { std::filesystem::remove_all(folder_); }

  ExitStatus calibrate(const std::vector<std::string>& more) {
    out_.str("");
    err_.str("");
    const Terminal terminal{
        .out = out_, .err = err_, .colour = false, .columns = 100, .program = {}};
    std::vector<std::string> words = {"calibrate", (folder_ / "steps.json").string()};
    words.insert(words.end(), more.begin(), more.end());
    return run(words, terminal);
  }
  std::string content(const std::string& name) const {
    std::ifstream in(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path folder_;
  std::ostringstream out_, err_;
};

TEST_F(Calibrate, ReportsErrorsBeforeAfterAndOfWhatItDidNotFitOn) {
  ASSERT_EQ(calibrate({"--folds", "2"}), ExitStatus::success) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("10 measured steps; held out in 2 parts"));
  for (const char* line : {"before", "fitted", "not fitted on", "GPU ampere", "source steps"}) {
    EXPECT_THAT(out_.str(), HasSubstr(line));
  }
  ASSERT_EQ(calibrate({"--folds", "1"}), ExitStatus::success) << err_.str();
  EXPECT_THAT(out_.str(), Not(HasSubstr("not fitted on")));
}

TEST_F(Calibrate, WritesTheSameFileEveryTimeAndTheCatalogueReadsIt) {
  ASSERT_EQ(calibrate({"--folds", "1", "-o", (folder_ / "a.toml").string()}), ExitStatus::success)
      << err_.str();
  ASSERT_EQ(calibrate({"--folds", "1", "-o", (folder_ / "b.toml").string()}), ExitStatus::success);
  EXPECT_FALSE(content("a.toml").empty());
  EXPECT_EQ(content("a.toml"), content("b.toml"));
  EXPECT_THAT(content("a.toml"), HasSubstr("# from "));
  const auto parsed = codec::parse(content("a.toml"), codec::Format::toml, "a.toml");
  ASSERT_TRUE(parsed.has_value()) << to_text(parsed.error());
  const facts::Value* gemm = parsed->find("architecture")->find("ampere")->find("gemm_ratio");
  ASSERT_NE(gemm, nullptr);
  ASSERT_NE(gemm->as_real(), nullptr);
  EXPECT_GE(*gemm->as_real(), 0.4);
  EXPECT_LE(*gemm->as_real(), 0.95);
}

TEST_F(Calibrate, WithoutASingleStepItSaysSo) {
  std::ofstream(folder_ / "steps.json")
      << R"({"schema": "steelyard.cases/1", "source": {"title": "made up"}, "cases": []})";
  EXPECT_EQ(calibrate({}), ExitStatus::bad_input);
  EXPECT_THAT(err_.str(), HasSubstr("no measured step"));
}

}  // namespace
}  // namespace steelyard::cli
