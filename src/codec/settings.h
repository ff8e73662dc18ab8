// Keys given on the command line: --set train.micro_batch=4.
#pragma once

#include <set>
#include <span>
#include <string>

#include "base/error.h"
#include "facts/value.h"

namespace steelyard::codec {

// Writes each "key=value" into the job's tree of values, in order, and adds its key to `given`. The
// value is in TOML syntax; a bare word is text. "optimizer" and "recompute" in their short forms
// become tables when a key inside of them is set.
[[nodiscard]] Result<void> apply_settings(facts::Value& job, std::span<const std::string> settings,
                                          std::set<std::string, std::less<>>& given);

// The value as TOML would read it, or as text when it is a bare word.
[[nodiscard]] Result<facts::Value> setting_value(std::string_view text);

}  // namespace steelyard::codec
