// What a placement says in words.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "facts/numa.h"
#include "facts/plan.h"

namespace steelyard::plan {

// "0-3,8" of whole numbers in order.
[[nodiscard]] std::string ranges(const std::vector<std::int64_t>& numbers);

// "2 sockets, one NUMA node each; GPUs in order over them (assumed)".
[[nodiscard]] std::string layout_words(const facts::NumaLayout& layout);

// Whole sentences about what a person would overlook.
void add_remarks(const facts::Plan& plan, facts::NumaPlacement& placement);

}  // namespace steelyard::plan
