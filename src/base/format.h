// The only place where quantities become text. Capacities are binary ("80.0 GiB"), rates decimal
// ("3.35 TB/s"), always with the letter.
#pragma once

#include <string>

#include "base/quantity.h"

namespace steelyard {

[[nodiscard]] std::string to_text(Bytes bytes);            // "79.6 GiB", "512 B", "-1.5 MiB"
[[nodiscard]] std::string to_text(BytesPerSecond rate);    // "3.35 TB/s", "900 GB/s"
[[nodiscard]] std::string to_text(FlopsPerSecond rate);    // "989 TFLOP/s"
[[nodiscard]] std::string to_text(Flops flops);            // "2.3 PFLOP"
[[nodiscard]] std::string to_text(Seconds seconds);        // "1.24 s", "315 ms", "2 h 05 min"
[[nodiscard]] std::string to_text(SamplesPerSecond rate);  // "812 samples/s"
[[nodiscard]] std::string to_text(TokensPerSecond rate);   // "11,400 tokens/s"
[[nodiscard]] std::string to_text(Parameters parameters);  // "8.03 B", "124 M"
[[nodiscard]] std::string percent(Ratio share);            // "38 %", "0.4 %"
[[nodiscard]] std::string grouped(std::int64_t number);    // "8,030,261,248"
[[nodiscard]] std::string compact(double number);          // "1.42 M", "60.3 K", "812"

}  // namespace steelyard
