// What a stored picture takes to decode, and any other record to be handed on, from rates that were
// measured on the machine.
#pragma once

#include <optional>
#include <string>

#include "base/quantity.h"
#include "facts/host_rates.h"
#include "feed/path.h"

namespace steelyard::feed {

struct PictureSize {
  double height = 0.0, width = 0.0, bytes = 0.0;
  [[nodiscard]] double pixels() const { return height * width; }
};

// data.stored_size, else pixels from the stored bytes (JPEG), shaped as most photographs; the bytes
// are data.bytes_per_sample. Nothing where either is not known.
[[nodiscard]] std::optional<PictureSize> picture_size(const Path& path);

enum class Crew { one, all };  // threads at work: one, or the most that were measured

// Seconds of one thread for one picture. Among pictures of one size the time goes in lines over
// the stored bytes, between sizes over the pixels; beyond the largest it grows with the pixels.
[[nodiscard]] std::optional<Seconds> measured_seconds(const facts::HostRates& rates,
                                                      const std::string& work,
                                                      const PictureSize& size, Crew crew);

// From one record to the next, of records that are read from the page cache by one thread and
// copied into their batch by `workers` (at least 1) others: one memory carries all of them. Lines
// over the bytes; between crews the rate goes evenly. Nothing where it was not measured.
[[nodiscard]] std::optional<Seconds> record_seconds(const facts::HostRates& rates, Bytes record,
                                                    std::int64_t workers);

// Of the machine where it was measured, else the constants.
[[nodiscard]] BytesPerSecond thread_copy_rate(const Path& path);
[[nodiscard]] BytesPerSecond cached_read_rate(const Path& path);
[[nodiscard]] BytesPerSecond memory_rate(const Path& path);

}  // namespace steelyard::feed
