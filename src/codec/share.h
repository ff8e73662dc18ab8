// What `steelyard share` and `steelyard ratio` write as JSON, and its schemas.
#pragma once

#include "facts/ratio.h"
#include "facts/share.h"
#include "facts/value.h"

namespace steelyard::codec {

[[nodiscard]] facts::Value to_value(const facts::MixRatio& ratio);  // schema steelyard.ratio/1
[[nodiscard]] facts::Value ratio_schema();
[[nodiscard]] facts::Value to_value(const facts::SharePlan& plan);  // schema steelyard.share/1
[[nodiscard]] facts::Value share_schema();

}  // namespace steelyard::codec
