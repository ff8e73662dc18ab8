// Saves the small files that a probe reads, so that a machine can be looked at elsewhere.
#pragma once

#include <filesystem>

#include "base/error.h"
#include "base/quantity.h"
#include "sense/tree.h"

namespace steelyard::probe {

struct Gathered {
  int files = 0;
  int links = 0;
  Bytes bytes;
};

// Copies every file that topology() and hwloc ask for into a new folder, with the symbolic links on
// the way, and the few environment variables that say what the process may use (file
// "environment"). Errors: the folder is there and not empty, or cannot be written.
[[nodiscard]] Result<Gathered> gather(const sense::Tree& tree, const std::filesystem::path& folder);

}  // namespace steelyard::probe
