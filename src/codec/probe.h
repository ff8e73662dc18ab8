// What `steelyard probe` found as JSON (schema steelyard.probe/1).
#pragma once

#include "facts/probe.h"
#include "facts/value.h"

namespace steelyard::codec {

[[nodiscard]] facts::Value to_value(const facts::Probe& probe);
// Its JSON Schema.
[[nodiscard]] facts::Value probe_schema();

}  // namespace steelyard::codec
