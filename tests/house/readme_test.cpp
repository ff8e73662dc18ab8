// The README's commands are run: each line of its "sh" blocks that begins with "steelyard " must
// end with status 0 or 3 (the job does not fit), and what it says of files must be true.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "support/files.h"
#include "support/process.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = STEELYARD_SOURCE_DIR;

std::vector<std::string> commands_in(const std::string& markdown) {
  std::vector<std::string> commands;
  std::istringstream lines(markdown);
  bool shell = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("```")) shell = line == "```sh";
    if (shell && line.starts_with("steelyard ")) commands.push_back(line);
  }
  return commands;
}

// The targets of Markdown links that are no addresses of the web.
std::vector<std::string> linked_files(const std::string& markdown) {
  std::vector<std::string> files;
  for (std::size_t at = markdown.find("]("); at != std::string::npos;
       at = markdown.find("](", at + 1)) {
    std::string target = markdown.substr(at + 2, markdown.find(')', at) - at - 2);
    target.resize(std::min(target.find('#'), target.size()));
    if (!target.empty() && target.find("://") == std::string::npos) files.push_back(target);
  }
  return files;
}

// Runs a line of the README in the repository, with `steelyard` being the program of this build.
testing::Outcome run_line(const std::string& line) {
  // Tests run side by side, each in a process of its own.
  const fs::path script =
      fs::path(::testing::TempDir()) / ("steelyard_readme." + std::to_string(::getpid()) + ".sh");
  std::ofstream(script) << "cd '" << kRoot.string() << "'\nsteelyard() { '" << STEELYARD_PROGRAM
                        << "' \"$@\"; }\n"
                        << line << "\n";
  const testing::Outcome outcome = testing::run_shell("bash '" + script.string() + "'");
  fs::remove(script);
  return outcome;
}

int status_of(const std::string& command) {
  return run_line(command + " >/dev/null").status;
}

TEST(Readme, ItsCommandsRun) {
  const auto commands = commands_in(testing::file_text(kRoot / "README.md"));
  EXPECT_GE(commands.size(), 5U);
  for (const std::string& command : commands) {
    const int status = status_of(command);
    EXPECT_TRUE(status == 0 || status == 3) << command << " ended with " << status;
  }
}

// The output that the README shows is what the program prints today. STEELYARD_WRITE_GOLDEN=1
// writes it anew.
TEST(Readme, ItsOutputIsReal) {
  const std::string readme = testing::file_text(kRoot / "README.md");
  const std::string fence = "```text\n";
  const std::size_t block = readme.find(fence);
  ASSERT_NE(block, std::string::npos);
  const std::size_t begin = block + fence.size();
  const std::size_t end = readme.find("```", begin);
  const std::string out = run_line("steelyard plan examples/llama-3.1-8b-fsdp.toml").out;
  if (std::getenv("STEELYARD_WRITE_GOLDEN") != nullptr) {
    std::ofstream(kRoot / "README.md") << readme.substr(0, begin) << out << readme.substr(end);
    return;
  }
  EXPECT_EQ(readme.substr(begin, end - begin), out);
}

TEST(Readme, LinksOfTheDocumentsLeadSomewhere) {
  std::vector<fs::path> documents = testing::files_under(kRoot / "docs", {".md"});
  for (const char* name : {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"}) {
    documents.push_back(kRoot / name);
  }
  for (const fs::path& document : documents) {
    for (const std::string& file : linked_files(testing::file_text(document))) {
      EXPECT_TRUE(fs::exists(document.parent_path() / file)) << document << ": " << file;
    }
  }
}

// What each example teaches is what `plan` says of it (tests/cli/cases_test.cpp runs the cases).
TEST(Readme, EveryExampleHasACaseOfItsPlan) {
  std::string cases;
  for (const fs::path& file : testing::files_under(kRoot / "tests/cases", {".case"})) {
    cases += testing::file_text(file);
  }
  std::size_t found = 0;
  for (const fs::path& job : testing::files_under(kRoot / "examples", {".toml"})) {
    const std::string wanted =
        "plan\nEXAMPLES/" + fs::relative(job, kRoot / "examples").string() + "\n";
    EXPECT_NE(cases.find(wanted), std::string::npos) << job << " has no case in tests/cases";
    ++found;
  }
  EXPECT_GE(found, 4U);
}

}  // namespace
}  // namespace steelyard
