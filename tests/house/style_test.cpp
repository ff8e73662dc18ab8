// The habits of docs/style.md that a machine can see.
#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "base/text.h"
#include "support/files.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = STEELYARD_SOURCE_DIR;
constexpr std::size_t kLongestFile = 500;     // lines
constexpr std::size_t kWidestLine = 100;      // columns
constexpr std::size_t kLongestFunction = 70;  // lines between the braces; about 60 is the aim

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::vector<fs::path> our_sources() {
  std::vector<fs::path> files = testing::files_under(kRoot / "src", {".h", ".cpp"});
  for (const fs::path& file : testing::files_under(kRoot / "tests", {".h", ".cpp"})) {
    files.push_back(file);
  }
  return files;
}

struct LongFunction {
  std::size_t first_line = 0;  // of the opening brace, from 1
  std::size_t lines = 0;
};

std::size_t indent_of(const std::string& line) {
  return line.find_first_not_of(' ');
}

// The line where the statement begins that ends at `last`: continuation lines stand further in.
const std::string& head_of(const std::vector<std::string>& lines, std::size_t last) {
  std::size_t first = last;
  while (first > 0 && indent_of(lines[first]) > indent_of(lines[first - 1])) --first;
  return lines[first].find('(') == std::string::npos ? lines[last] : lines[first];
}

bool opens_a_function(const std::string& head) {
  const std::vector<std::string> others = {"namespace", "struct", "class",  "enum", "if",  "for",
                                           "while",     "switch", "case",   "do",   "try", "}",
                                           "union",     "extern", "return", "{"};
  const std::string text = head.substr(std::min(indent_of(head), head.size()));
  return std::none_of(others.begin(), others.end(),
                      [&](const std::string& other) { return text.starts_with(other); }) &&
         text.find('(') != std::string::npos;
}

// The bodies of functions longer than `limit`, found by the layout that clang-format gives: a body
// ends with a brace in the column where its head began, column 0 for a function and 2 for a member
// (or a lambda in a function).
std::vector<LongFunction> long_functions(const std::vector<std::string>& lines, std::size_t limit) {
  std::vector<LongFunction> found;
  for (const std::size_t column : {0U, 2U}) {
    const std::string end = std::string(column, ' ') + "}";
    std::size_t open = 0;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const std::string& line = lines[i];
      const bool closes = line == end || line.starts_with(end + ";") || line.starts_with(end + ")");
      if (closes && open > 0) {
        const std::size_t length = i - open;
        if (length > limit) found.push_back({open, length});
        open = 0;
      }
      if (open > 0 || !line.ends_with("{")) continue;
      const std::string& head = head_of(lines, i);
      const bool argument = &head != &line && line.find("](") != std::string::npos;
      if (argument) continue;  // a lambda among arguments ends in its own column
      if (indent_of(head) == column && opens_a_function(head)) open = i + 1;
    }
  }
  return found;
}

TEST(Style, FilesAndLinesAreShort) {
  for (const fs::path& file : our_sources()) {
    const auto lines = lines_of(testing::file_text(file));
    EXPECT_LE(lines.size(), kLongestFile) << file;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      EXPECT_LE(display_width(lines[i]), kWidestLine) << file << ':' << i + 1;
    }
  }
}

TEST(Style, FunctionsAreShort) {
  for (const fs::path& file : testing::files_under(kRoot / "src", {".cpp"})) {
    for (const LongFunction& function :
         long_functions(lines_of(testing::file_text(file)), kLongestFunction)) {
      ADD_FAILURE() << file << ':' << function.first_line << ": a function of " << function.lines
                    << " lines";
    }
  }
}

bool is_letter(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0;
}

bool has_word(const std::string& text, const std::string& word) {
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    const bool begins = at == 0 || !is_letter(text[at - 1]);
    const std::size_t end = at + word.size();
    if (begins && (end == text.size() || !is_letter(text[end]))) return true;
  }
  return false;
}

TEST(Style, NothingIsPutOff) {
  // Spelt in two parts, so that this file does not find itself.
  const std::vector<std::string> words = {std::string("TO") + "DO", std::string("FIX") + "ME",
                                          std::string("XX") + "X", std::string("HA") + "CK"};
  for (const fs::path& file : our_sources()) {
    const std::string text = testing::file_text(file);
    for (const std::string& word : words)
      EXPECT_FALSE(has_word(text, word)) << file << ": " << word;
  }
}

TEST(Style, NoTestIsSwitchedOff) {
  for (const fs::path& file : testing::files_under(kRoot / "tests", {".h", ".cpp"})) {
    const std::string text = testing::file_text(file);
    EXPECT_EQ(text.find(std::string("GTEST_") + "SKIP"), std::string::npos) << file;
    EXPECT_EQ(text.find(std::string("DISA") + "BLED_"), std::string::npos) << file;
  }
}

TEST(Style, HeadersAreGuardedAndSayWhatTheyAreFor) {
  for (const fs::path& file : testing::files_under(kRoot / "src", {".h"})) {
    const std::string text = testing::file_text(file);
    EXPECT_TRUE(text.starts_with("//")) << file << " does not begin with what it is for";
    EXPECT_NE(text.find("#pragma once"), std::string::npos) << file;
  }
}

TEST(Style, TheFunctionLengthsAreSeen) {
  const std::vector<std::string> source = {"namespace a {",
                                           "int f(int n) {",
                                           "  if (n) {",
                                           "    n = 1;",
                                           "  }",
                                           "  return n;",
                                           "}",
                                           "class B {",
                                           "  int g() const {",
                                           "    return 1;",
                                           "  }",
                                           "};",
                                           "int long_head(int first,",
                                           "              int b) {",
                                           "  return b;",
                                           "}",
                                           "}  // namespace a"};
  // f: 4 lines between its braces, g: 1, long_head: 1.
  EXPECT_EQ(long_functions(source, 4).size(), 0U);
  ASSERT_EQ(long_functions(source, 3).size(), 1U);
  EXPECT_EQ(long_functions(source, 3).front().lines, 4U);
  EXPECT_EQ(long_functions(source, 0).size(), 3U);
}

}  // namespace
}  // namespace steelyard
