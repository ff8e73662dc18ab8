// What a rehearsal of the data path measured, the plan's prediction beside it where there is one.
#pragma once

#include "facts/rehearsal.h"
#include "report/report.h"

namespace steelyard::report {

[[nodiscard]] std::string rehearsal_text(const facts::Rehearsal& rehearsal, const Style& style);

}  // namespace steelyard::report
