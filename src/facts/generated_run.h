// What making up a data set of MLPerf Storage's took.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/quantity.h"

namespace steelyard::facts {

struct GeneratedRun {
  std::string preset;
  std::string folder;
  std::int64_t files = 0;
  Samples samples;
  Bytes bytes;  // of all records
  Seconds took;
  BytesPerSecond demand;  // of one accelerator at the preset's pace
  std::vector<std::string> remarks{};
};

}  // namespace steelyard::facts
