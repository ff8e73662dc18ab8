// The README's commands are run: each line of its "sh" blocks that begins with "steelyard " must
// end with status 0 or 3 (the job does not fit), and what it says of files must be true.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "support/files.h"

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

int status_of(const std::string& command) {
  const std::string line = "cd '" + kRoot.string() + "' && steelyard() { '" + STEELYARD_PROGRAM +
                           "' \"$@\"; }; " + command + " >/dev/null";
  const int status = std::system(("bash -c '" +
                                  [&] {
                                    std::string quoted;
                                    for (const char c : line) {
                                      quoted +=
                                          c == '\'' ? std::string("'\\''") : std::string(1, c);
                                    }
                                    return quoted;
                                  }() +
                                  "'")
                                     .c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Readme, ItsCommandsRun) {
  const auto commands = commands_in(testing::file_text(kRoot / "README.md"));
  EXPECT_GE(commands.size(), 5U);
  for (const std::string& command : commands) {
    const int status = status_of(command);
    EXPECT_TRUE(status == 0 || status == 3) << command << " ended with " << status;
  }
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

TEST(Readme, EveryExampleIsPlanned) {
  std::size_t planned = 0;
  for (const fs::path& job : testing::files_under(kRoot / "examples", {".toml"})) {
    const int status = status_of("steelyard plan '" + job.string() + "'");
    EXPECT_TRUE(status == 0 || status == 3) << job << " ended with " << status;
    ++planned;
  }
  EXPECT_GE(planned, 4U);
}

}  // namespace
}  // namespace steelyard
