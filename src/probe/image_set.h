// The images that are decoded: made here, or read from a folder.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "facts/measurements.h"
#include "probe/raster.h"

namespace steelyard::probe {

// Files of one codec and of about one size, decoded in turn.
struct ImageGroup {
  bool png = false;
  std::vector<Encoded> files{};
  double width = 0;  // the means
  double height = 0;
  double bytes = 0;
};

// Eight JPEG of that size at quality 90, 4:2:0; four PNG.
[[nodiscard]] Result<ImageGroup> synthetic_jpegs(int width, int height, Detail detail);
[[nodiscard]] Result<ImageGroup> synthetic_pngs(int width, int height, Detail detail);

// At most kMostFiles JPEG and PNG files from the folder and those below, in the order of their
// paths spread over all of them; in groups by size and by bytes per pixel. Files that cannot be
// decoded are left out and counted. Fails where none is left.
struct FolderImages {
  std::vector<ImageGroup> groups{};
  std::size_t broken = 0;
};
inline constexpr std::size_t kMostFiles = 128;
[[nodiscard]] Result<FolderImages> images_of(const std::filesystem::path& folder);

}  // namespace steelyard::probe
