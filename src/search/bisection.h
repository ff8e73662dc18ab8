// The end of what fits along one key, found by doubling and halving.
#pragma once

#include <cstdint>
#include <functional>

namespace steelyard::search {

struct End {
  std::int64_t last = 0;  // the largest that holds; 0: none
  bool open = false;      // it holds up to `most`, where the search ended
};

// `holds(1) ... holds(last)` are true, what follows is not: the last one, where `from` is a guess
// at it. Numbers are asked at most about 2 log2(most) times.
[[nodiscard]] End last_that_holds(std::int64_t from, std::int64_t most,
                                  const std::function<bool(std::int64_t)>& holds);

}  // namespace steelyard::search
