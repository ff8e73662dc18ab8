// Cases that a user could send: tests/cases/*.case, each a job and the lines its output must have.
//
//   # a comment
//   --- job              a job file; left out, the case is only its arguments
//   model.config = "gpt2"
//   --- args             one argument a line after "steelyard"; JOB stands for the job file;
//   plan                 left out: plan JOB
//   JOB                  TESTS/, EXAMPLES/ at the beginning of one stand for these folders
//   --- status           of the process; left out: 0
//   3
//   --- contains         lines that must appear in this order, each as a part of a line
//   DOES NOT FIT
//   --- error            the same of standard error; then standard output must be empty
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "support/files.h"

namespace steelyard::cli {
namespace {

namespace fs = std::filesystem;
using Sections = std::map<std::string, std::vector<std::string>>;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

Sections sections_of(const std::string& text) {
  Sections sections;
  std::string name;
  for (const std::string& line : lines_of(text)) {
    if (line.starts_with("--- ")) {
      name = line.substr(4);
      sections[name];
    } else if (!name.empty() && (name == "job" || !line.empty())) {
      sections[name].push_back(line);
    }
  }
  return sections;
}

// The first of `wanted` that does not appear in `text` behind the ones before it; empty: all do.
std::string first_missing(const std::vector<std::string>& wanted, const std::string& text) {
  const std::vector<std::string> lines = lines_of(text);
  std::size_t at = 0;
  for (const std::string& want : wanted) {
    while (at < lines.size() && lines[at].find(want) == std::string::npos) ++at;
    if (at == lines.size()) return want;
    ++at;
  }
  return {};
}

class CaseFile : public ::testing::TestWithParam<fs::path> {};

TEST_P(CaseFile, SaysWhatItMust) {
  Sections sections = sections_of(testing::file_text(GetParam()));
  for (const auto& [name, lines] : sections) {
    ASSERT_TRUE(name == "job" || name == "args" || name == "status" || name == "contains" ||
                name == "error")
        << "unknown section: " << name;
  }
  ASSERT_TRUE(sections.contains("contains") || sections.contains("error")) << "checks nothing";
  // Tests run side by side, each in a process of its own.
  const fs::path folder =
      fs::path(::testing::TempDir()) / ("steelyard_cases." + std::to_string(::getpid()));
  fs::create_directories(folder);
  const fs::path job = folder / (GetParam().stem().string() + ".toml");
  {
    std::ofstream file(job);
    for (const std::string& line : sections["job"]) file << line << "\n";
  }
  std::vector<std::string> arguments = sections["args"];
  if (arguments.empty()) arguments = {"plan", "JOB"};
  for (std::string& argument : arguments) {
    if (argument == "JOB") argument = job;
    if (argument.starts_with("TESTS/")) argument = STEELYARD_TESTS_DIR + argument.substr(5);
    if (argument.starts_with("EXAMPLES/")) {
      argument = STEELYARD_SOURCE_DIR "/examples" + argument.substr(8);
    }
  }
  std::ostringstream out, err;
  const Terminal terminal{.out = out, .err = err, .colour = false, .columns = 100, .program = {}};
  const int status = static_cast<int>(run(arguments, terminal));
  fs::remove_all(folder);
  const auto& wanted = sections["status"];
  EXPECT_EQ(std::to_string(status), wanted.empty() ? "0" : wanted.front()) << err.str();
  EXPECT_EQ(first_missing(sections["contains"], out.str()), "") << out.str() << err.str();
  EXPECT_EQ(first_missing(sections["error"], err.str()), "") << err.str();
  if (sections["error"].empty()) {
    EXPECT_EQ(err.str(), "");
  } else {
    EXPECT_EQ(out.str(), "");
  }
}

std::string test_name(const ::testing::TestParamInfo<fs::path>& info) {
  std::string name = info.param.stem();
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    Cases, CaseFile,
    ::testing::ValuesIn(testing::files_under(fs::path(STEELYARD_TESTS_DIR) / "cases", {".case"})),
    test_name);

TEST(Cases, OrderCounts) {
  EXPECT_EQ(first_missing({"a", "b"}, "xa\nyb\n"), "");
  EXPECT_EQ(first_missing({"b", "a"}, "xa\nyb\n"), "a");
  EXPECT_EQ(first_missing({"a", "a"}, "xa\n"), "a");
}

}  // namespace
}  // namespace steelyard::cli
