// What `steelyard rehearse --checkpoint` prints.
#pragma once

#include <string>

#include "facts/checkpoint_run.h"

namespace steelyard::report {

[[nodiscard]] std::string checkpoint_text(const facts::CheckpointRun& run);

}  // namespace steelyard::report
