// A rehearsal as JSON (schema steelyard.rehearsal/1), and that schema.
#pragma once

#include "facts/rehearsal.h"
#include "facts/value.h"

namespace steelyard::codec {

[[nodiscard]] facts::Value to_value(const facts::Rehearsal& rehearsal);
[[nodiscard]] facts::Value rehearsal_schema();

}  // namespace steelyard::codec
