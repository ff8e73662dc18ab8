// How fast this host decodes JPEG and PNG and resizes to 224 x 224, by image size.
#pragma once

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "facts/measurements.h"

namespace steelyard::probe {

struct ImageOptions {
  std::vector<int> threads{};    // hardware threads to run on
  std::filesystem::path path{};  // a folder of JPEG and PNG files; empty: synthetic images
  std::vector<std::pair<int, int>> sizes = {{256, 256}, {500, 375}, {1024, 768}, {1920, 1080}};
  Seconds budget = Seconds(12);
};

// Fails where `path` holds no image that can be decoded.
[[nodiscard]] Result<facts::ImageMeasurements> measure_images(const ImageOptions& options);

}  // namespace steelyard::probe
