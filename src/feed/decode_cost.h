// CPU time of decoding and transforming one sample on one core.
#pragma once

#include <optional>
#include <string>

#include "base/quantity.h"
#include "feed/path.h"

namespace steelyard::feed {

struct DecodeCost {
  std::optional<Seconds> seconds;  // unknown when a needed size is not given
  std::string note;                // how it is known
};

// data.decode_seconds when given; else by data.kind from the calibration: JPEG and PNG by stored
// bytes (and pixels, derived from them), with resizing, cropping and normalising; video by frames;
// text and audio by stored bytes; others per sample.
[[nodiscard]] DecodeCost decode_cost(const Path& path);

}  // namespace steelyard::feed
