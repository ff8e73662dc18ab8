// Host memory of several jobs on one server.
#pragma once

#include <vector>

#include "facts/share.h"

namespace steelyard::share {

// Jobs without a plan count for nothing. What is left for the page cache is what all leave at their
// fullest moments, as each job's own plan counts it.
[[nodiscard]] facts::SharedRam shared_ram(const std::vector<facts::PlacedJob>& jobs,
                                          const facts::Known<Bytes>& capacity);

}  // namespace steelyard::share
