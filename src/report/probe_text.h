// What `steelyard probe` found, for a person: figures with how each is known, then warnings.
#pragma once

#include <string>

#include "facts/probe.h"
#include "report/paint.h"
#include "report/report.h"

namespace steelyard::report {

[[nodiscard]] std::string topology_text(const facts::Topology& topology, const Style& style);

// What was measured, section by section: median, how far the runs lie apart, warnings.
[[nodiscard]] std::string measurements_text(const facts::Measurements& measurements,
                                            const Style& style);

// The section on GPUs, empty without one.
[[nodiscard]] std::string gpus_text(const facts::Topology& topology, const Paint& paint);

}  // namespace steelyard::report
