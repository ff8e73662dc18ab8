// The same work for many things, on as many threads as the host has cores. What comes out does not
// depend on how many those are.
#pragma once

#include <cstddef>
#include <functional>

namespace steelyard {

// Calls work(0) ... work(count - 1), in any order and side by side: calls must share nothing that
// they write. An exception of one of them (the first by number) is thrown again when all are done.
void for_each_side_by_side(std::size_t count, const std::function<void(std::size_t)>& work);

}  // namespace steelyard
