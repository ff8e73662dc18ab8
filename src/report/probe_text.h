// What `steelyard probe` found, for a person: figures with how each is known, then warnings.
#pragma once

#include <string>

#include "facts/topology.h"
#include "report/paint.h"
#include "report/report.h"

namespace steelyard::report {

[[nodiscard]] std::string topology_text(const facts::Topology& topology, const Style& style);

// The section on GPUs, empty without one.
[[nodiscard]] std::string gpus_text(const facts::Topology& topology, const Paint& paint);

}  // namespace steelyard::report
