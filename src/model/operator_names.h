// Names of operator kinds, for tables: "rms_norm".
#pragma once

#include <string_view>

#include "model/graph.h"

namespace steelyard::model {

[[nodiscard]] std::string_view name_of(OperatorKind kind);

}  // namespace steelyard::model
