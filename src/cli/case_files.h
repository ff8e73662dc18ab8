// Files of measured cases, as `validate` and `calibrate` take them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"

namespace steelyard::cli {

// A folder stands for the *.json files in it, by name.
[[nodiscard]] Result<std::vector<std::filesystem::path>> case_files(
    const std::vector<std::string>& paths);

[[nodiscard]] Result<void> write_file(const std::string& path, const std::string& text);

}  // namespace steelyard::cli
