#include "feed/page_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/format.h"

namespace steelyard::feed {

CacheHits page_cache_hits(Bytes cache, Bytes dataset, facts::Shuffle shuffle) {
  if (dataset <= cache) {
    return {Ratio(1.0), Ratio(1.0),
            fmt::format("the dataset ({}) fits into the {} left for the page cache",
                        to_text(dataset), to_text(cache))};
  }
  const double f = std::clamp((cache / dataset).value(), 0.0, 1.0);
  if (shuffle == facts::Shuffle::none) {
    return {Ratio(0.0), Ratio(f),
            fmt::format("read in order, a dataset ({}) larger than the page cache ({}) is never "
                        "found in it",
                        to_text(dataset), to_text(cache))};
  }
  const double lru = f <= 0.0 ? 0.0 : std::clamp(f + (1.0 - f) * std::log1p(-f), 0.0, f);
  return {Ratio(lru), Ratio(f),
          fmt::format("read in a new random order each epoch, an LRU page cache of {} serves {} of "
                      "a dataset of {} (at most {} if nothing were replaced)",
                      to_text(cache), percent(Ratio(lru)), to_text(dataset), percent(Ratio(f)))};
}

}  // namespace steelyard::feed
