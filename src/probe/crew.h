// Threads, one per hardware thread, that begin the same work at the same moment.
#pragma once

#include <functional>
#include <vector>

#include "base/quantity.h"

namespace steelyard::probe {

// work(i) on a thread bound to hardware thread threads[i] (unbound where that is negative); i = 0
// ... threads.size() - 1. The time from the first begin to the last end. Where binding is refused
// the thread runs unbound.
[[nodiscard]] Seconds run_together(const std::vector<int>& threads,
                                   const std::function<void(std::size_t)>& work);

}  // namespace steelyard::probe
