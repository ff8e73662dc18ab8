// What of all that was found is better than what.
#pragma once

#include "facts/what_if.h"

namespace steelyard::search {

// Marks what nothing else found is better than in step, price, GPUs and RAM at once, orders the
// places by the goal (unknown steps behind known ones, prices within their currency). Prices in two
// currencies are not compared. The currencies are sorted, each named once.
void rank(facts::SearchResult& result);

}  // namespace steelyard::search
