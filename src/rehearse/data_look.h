// What a plan wants to know of a data set: how large its records and its pictures are.
#pragma once

#include <cstdint>
#include <optional>

#include "rehearse/dataset.h"

namespace steelyard::rehearse {

struct DataLook {
  std::int64_t records = 0;
  double bytes = 0.0, deviation = 0.0;  // of a record, as stored: mean, standard deviation
  // Of pictures, the mean over a sample of their heads; unknown where none of these can be read.
  std::optional<double> height{}, width{};
};

// Reads the heads of at most 64 pictures, spread over all.
[[nodiscard]] DataLook look_at(const Dataset& dataset);

}  // namespace steelyard::rehearse
