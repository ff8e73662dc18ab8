#include "cli/case_files.h"

#include <algorithm>
#include <fstream>

namespace steelyard::cli {

namespace fs = std::filesystem;

Result<std::vector<fs::path>> case_files(const std::vector<std::string>& paths) {
  std::vector<fs::path> files;
  for (const std::string& path : paths) {
    std::error_code failed;
    if (!fs::is_directory(path, failed)) {
      files.emplace_back(path);
      continue;
    }
    std::vector<fs::path> inside;
    for (const auto& entry : fs::directory_iterator(path, failed)) {
      if (entry.path().extension() == ".json") inside.push_back(entry.path());
    }
    if (failed || inside.empty()) {
      return fail({.code = ErrorCode::unreadable,
                   .subject = path,
                   .found = failed ? failed.message() : "no *.json file in it",
                   .accepted = "a folder of case files (steelyard schema cases)"});
    }
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

Result<void> write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (file) return {};
  return fail({.code = ErrorCode::unreadable,
               .subject = path,
               .found = "a file that cannot be written",
               .accepted = "a path in a folder that exists and may be written to"});
}

}  // namespace steelyard::cli
