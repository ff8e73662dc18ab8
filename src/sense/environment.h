// The few environment variables that say how a process was started.
#pragma once

#include "sense/tree.h"
#include "sense/words.h"

namespace steelyard::sense {

// Of this process; of a recorded tree those in its file "environment", NAME=value on each line.
// Only the names that `host_limits` asks for: the rest is nobody's business.
[[nodiscard]] Environment environment_of(const Tree& tree);

}  // namespace steelyard::sense
