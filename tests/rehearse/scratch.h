// A folder for one test, gone after it; files read and written whole.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "rehearse/dataset.h"
#include "support/files.h"

namespace steelyard::rehearse::testing {

class Scratch {
 public:
  Scratch() {
    static int made = 0;
    path_ = std::filesystem::path(::testing::TempDir()) /
            ("steelyard_rehearse." + std::to_string(::getpid()) + "." + std::to_string(made++));
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::filesystem::remove_all(path_); }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& content) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
    return file;
  }

 private:
  std::filesystem::path path_;
};

// The bytes of a record, as the file has them.
inline std::string bytes_of(const Dataset& data, std::size_t record) {
  const Record& at = data.records.at(record);
  return steelyard::testing::file_text(data.files.at(at.file)).substr(at.offset, at.bytes);
}

// One of the small files that other libraries wrote (make_formats.py).
inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(STEELYARD_TESTS_DIR) / "rehearse" / "formats" / name;
}

// What the data set is, or a test failure with its error.
inline Dataset opened(const std::filesystem::path& path, const OpenOptions& options = {}) {
  Result<Dataset> data = open_dataset(path, options);
  if (!data) {
    ADD_FAILURE() << to_text(data.error());
    return {};
  }
  return *std::move(data);
}

}  // namespace steelyard::rehearse::testing
