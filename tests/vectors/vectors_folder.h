// Where the recorded vectors lie: the folder that STEELYARD_VECTORS names, by default the
// project's.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace steelyard::testing {

inline std::filesystem::path vectors_folder() {
  if (const char* named = std::getenv("STEELYARD_VECTORS"); named != nullptr && *named != '\0') {
    return named;
  }
  return std::filesystem::path(STEELYARD_TESTS_DIR) / "vectors" / "data";
}

}  // namespace steelyard::testing
