// `steelyard rehearse --json` (schema steelyard.rehearsal/1).
#pragma once

#include <string>

#include "base/error.h"
#include "facts/rehearsal.h"
#include "facts/value.h"

namespace steelyard::codec {

[[nodiscard]] facts::Value to_value(const facts::Rehearsal& rehearsal);
// What to_value wrote; null is what is not known. `name` appears in messages.
[[nodiscard]] Result<facts::Rehearsal> rehearsal_from(const facts::Value& value,
                                                      const std::string& name);

}  // namespace steelyard::codec
