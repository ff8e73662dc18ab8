// A size as a person writes it: "20GiB", "1.5 TiB", "500MB", "4096" (bytes).
#pragma once

#include <string_view>

#include "base/error.h"
#include "base/quantity.h"

namespace steelyard {

// KiB, MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB of 1000; B or nothing is bytes. Letters of
// any case but for that. Errors: bad_input with `subject` ("--size").
[[nodiscard]] Result<Bytes> parse_bytes(std::string_view text, std::string_view subject);

}  // namespace steelyard
