// Whether jobs fit together, why not, and which of them to move.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "facts/share.h"
#include "share/place.h"

namespace steelyard::share {

struct Fit {
  const Room* room = nullptr;
  facts::Known<Bytes> capacity{};  // of the host
};

struct Judgement {
  facts::ShareVerdict verdict = facts::ShareVerdict::fits;
  std::vector<std::string> sentences{};
  std::vector<std::size_t> move{};  // indices of jobs
};

// `has_places`: whether these jobs (indices) find GPUs.
using HasPlaces = std::function<bool(const std::vector<std::size_t>& jobs)>;

// Jobs that cannot run here alone move in any case; of the others the fewest, of those the ones
// that ask for the fewest GPUs and then for the least host memory.
[[nodiscard]] Judgement judged(const facts::SharePlan& plan, const Fit& fit,
                               const HasPlaces& has_places);

}  // namespace steelyard::share
