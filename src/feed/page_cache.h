// How much of a dataset that is read once per epoch the page cache serves.
#pragma once

#include <string>

#include "base/quantity.h"
#include "facts/enums.h"

namespace steelyard::feed {

struct CacheHits {
  Ratio served;     // expected after the first epoch
  Ratio at_most;    // of a cache that never replaces what it holds (c / D)
  std::string why;  // the regime, in words
};

// `cache` bytes for `dataset` bytes, both of one node; dataset above 0.
//
// Everything fits: 1. Read in order, D > c: an LRU cache has always just dropped what comes next,
// 0. Read in a new random order each epoch, with f = c / D: a sample at position x of one epoch and
// y of the next is still there when fewer than c other bytes came between, x (1 - y) > 1 - f; over
// all x and y that is f + (1 - f) ln(1 - f). docs/model/data-path.md derives it.
[[nodiscard]] CacheHits page_cache_hits(Bytes cache, Bytes dataset, facts::Shuffle shuffle);

}  // namespace steelyard::feed
