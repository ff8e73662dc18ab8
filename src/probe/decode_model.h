// Decoding time as a sum of what each pixel and each compressed byte costs.
#pragma once

#include <optional>
#include <vector>

#include "facts/measurements.h"

namespace steelyard::probe {

// One image size on one core.
struct DecodePoint {
  double pixels = 0;
  double bytes = 0;
  Seconds time{};  // of one image
};

// Least squares of the relative errors, so that small images count as much as large ones; neither
// cost is below zero. Nothing for fewer than two points, or where bytes per pixel are the same
// everywhere, which tells the two apart as little as one point does.
[[nodiscard]] std::optional<facts::DecodeModel> fit_decode_model(
    const std::vector<DecodePoint>& points);

}  // namespace steelyard::probe
