// The bash completion as bash itself runs it; the other two by their text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "support/process.h"

namespace steelyard::cli {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string script(const std::string& shell) {
  std::ostringstream out, err;
  const Terminal terminal{.out = out, .err = err, .colour = false, .columns = 100, .program = {}};
  EXPECT_EQ(run({"completion", shell}, terminal), ExitStatus::success) << err.str();
  return out.str();
}

// What bash offers at the end of the line.
std::vector<std::string> offered(const std::string& line) {
  // Tests run side by side, each in a process of its own.
  const auto file = std::filesystem::path(::testing::TempDir()) /
                    ("steelyard_completion." + std::to_string(::getpid()) + ".bash");
  std::ofstream(file) << script("bash") << "COMP_LINE='" << line << "'\nCOMP_POINT=" << line.size()
                      << "\n_steelyard\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
  std::vector<std::string> words;
  std::istringstream lines(testing::run_shell("bash '" + file.string() + "'").out);
  for (std::string word; std::getline(lines, word);) {
    if (!word.empty()) words.push_back(word);
  }
  std::filesystem::remove(file);
  return words;
}

TEST(Completion, Commands) {
  EXPECT_THAT(offered("steelyard "), Contains("plan"));
  EXPECT_THAT(offered("steelyard va"), ::testing::ElementsAre("validate"));
}

TEST(Completion, OptionsAndTheirValues) {
  EXPECT_THAT(offered("steelyard plan --a"), ::testing::ElementsAre("--ascii"));
  EXPECT_THAT(offered("steelyard plan x --gpu h100-sxm"), Contains("h100-sxm-80gb"));
  EXPECT_THAT(offered("steelyard plan x --set train.micro"), Contains("train.micro_batch="));
  EXPECT_THAT(offered("steelyard list "), Contains("gpus"));
  EXPECT_THAT(offered("steelyard validate x --only v"), ::testing::ElementsAre("vram"));
  EXPECT_THAT(offered("steelyard why job.toml v"), Contains("vram"));
}

TEST(Completion, NamesOfTheCatalogue) {
  EXPECT_THAT(offered("steelyard show model llama-3.1-8"), Contains("llama-3.1-8b"));
  // Bash replaces only what stands behind the colon, so that is what it is given.
  EXPECT_THAT(offered("steelyard show machine aws:p5.48"), Contains("p5.48xlarge"));
  EXPECT_THAT(offered("steelyard nonsense "), IsEmpty());
}

TEST(Completion, ZshAndFishKnowTheSameWords) {
  for (const char* shell : {"zsh", "fish"}) {
    const std::string text = script(shell);
    for (const char* word :
         {"validate", "train.micro_batch=", "h100-sxm-80gb", "dgx-h100", "llama-3.1-8b", "gpus"}) {
      EXPECT_THAT(text, HasSubstr(word)) << shell;
    }
  }
  EXPECT_THAT(script("fish"), HasSubstr("-l no-colour"));
  EXPECT_THAT(script("zsh"), Not(HasSubstr("compadd -- \n")));
}

}  // namespace
}  // namespace steelyard::cli
