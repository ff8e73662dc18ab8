// The folders of broken input files beside this header: NAME.toml or NAME.json is the input,
// NAME.expect the part of the message that a person must find in it.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace steelyard::testing {

struct BrokenFile {
  std::filesystem::path path;
  std::string expected;
};

inline std::vector<BrokenFile> broken_files(const std::string& folder) {
  std::vector<BrokenFile> files;
  const auto root = std::filesystem::path(STEELYARD_TESTS_DIR) / "input" / folder;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (entry.path().extension() == ".expect") continue;
    std::ifstream expect(std::filesystem::path(entry.path()).replace_extension(".expect"));
    std::stringstream text;
    text << expect.rdbuf();
    std::string expected = text.str();
    while (!expected.empty() && expected.back() == '\n') expected.pop_back();
    files.push_back({entry.path(), expected});
  }
  std::sort(files.begin(), files.end(),
            [](const BrokenFile& a, const BrokenFile& b) { return a.path < b.path; });
  return files;
}

}  // namespace steelyard::testing
