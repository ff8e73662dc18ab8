// Values as JSON and TOML text. Real numbers are written with the fewest digits that read back to
// the same double, and always recognisable as real ("1.0", "5e+08").
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "facts/value.h"

namespace steelyard::codec {

[[nodiscard]] std::string real_text(double x);

// A JSON string with its quotes; malformed UTF-8 becomes U+FFFD.
[[nodiscard]] std::string json_text(std::string_view text);

// One line of TOML. Nothing for what TOML cannot say: null, or a list that holds null. Members of
// tables that are null are left out.
[[nodiscard]] std::optional<std::string> to_toml(const facts::Value& value);

// The value as a message shows it: short, on one line.
[[nodiscard]] std::string shown(const facts::Value& value);

}  // namespace steelyard::codec
