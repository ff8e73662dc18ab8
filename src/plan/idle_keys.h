// Keys that a person set and that change nothing in this job.
#pragma once

#include <string>
#include <vector>

#include "facts/job.h"
#include "model/graph.h"

namespace steelyard::plan {

// One sentence per such key of the job file: what is idle, and which other key makes it so. `job`:
// resolved. Keys of imports stay silent: other tools write all of theirs.
[[nodiscard]] std::vector<std::string> idle_keys(const facts::Job& job, const model::Graph& graph);

}  // namespace steelyard::plan
