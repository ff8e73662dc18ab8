// Which figures of the machine were measured on it (`steelyard probe`) and not looked up.
#pragma once

#include "report/plan_sections.h"

namespace steelyard::report {

// None for a machine of the catalogue.
[[nodiscard]] Lines measured_lines(const facts::Plan& plan, std::size_t width, const Paint& paint);

}  // namespace steelyard::report
