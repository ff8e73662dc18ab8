// YAML to a tree of values, with libyaml: mappings, sequences and scalars by the core schema.
// Anchors, aliases, tags and several documents are refused; depth and size are limited.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "facts/value.h"

namespace steelyard::exchange {

// `name` appears in messages, with the line.
[[nodiscard]] Result<facts::Value> parse_yaml(std::string_view text, const std::string& name);

// A plain (unquoted) scalar: true and false, null, whole and real numbers, otherwise text.
[[nodiscard]] facts::Value plain_scalar(std::string_view text);

}  // namespace steelyard::exchange
