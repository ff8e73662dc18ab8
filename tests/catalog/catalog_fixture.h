// The repository's own catalogue, and throw-away ones with chosen content.
#pragma once

#include <gtest/gtest.h>

#include <unistd.h>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "catalog/catalog.h"

namespace steelyard::catalog {

inline std::filesystem::path own_folder() {
  return std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog";
}
inline Catalog own_catalog() {
  return Catalog::at(own_folder());
}

// A folder that is removed with this object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("steelyard-catalog-" + std::to_string(getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code trouble;
    std::filesystem::remove_all(path_, trouble);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  void write(const std::string& relative, std::string_view content) const {
    std::filesystem::create_directories((path_ / relative).parent_path());
    std::ofstream(path_ / relative) << content;
  }
  void copy_own_catalog() const {
    std::filesystem::copy(own_folder(), path_, std::filesystem::copy_options::recursive);
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The value of a result that must be there; the error's text otherwise.
template <class T>
T value_of(Result<T> result) {
  EXPECT_TRUE(result.has_value()) << (result ? "" : to_text(result.error()));
  return result ? std::move(*result) : T{};
}

template <class T>
Error error_of(const Result<T>& result) {
  EXPECT_FALSE(result.has_value());
  return result ? Error{} : result.error();
}

}  // namespace steelyard::catalog
