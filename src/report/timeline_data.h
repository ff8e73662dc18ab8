// The moments of a plan as JavaScript and trace viewers read them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "facts/plan.h"

namespace steelyard::report {

// A JSON text, quotes included. "<" is escaped too, so that it may stand inside of <script>.
[[nodiscard]] std::string json_text(std::string_view text);

// {"job", "capacity" (null: unknown), "categories", "strings", "ranks": [{"kind", "ranks",
// "phase", "layer", "operator": indices into strings, "live": bytes by category}]}, one entry of
// the four lists per moment.
[[nodiscard]] std::string timeline_data(const facts::Plan& plan);

}  // namespace steelyard::report
