// GPUs over nodes.
#pragma once

#include <cstdint>
#include <optional>

namespace steelyard::search {

struct Spread {
  std::int64_t nodes = 1, gpus = 1;  // of each node
};

// So many GPUs on the fewest nodes that have `per_node` each: one node in part, or whole nodes.
[[nodiscard]] inline std::optional<Spread> spread_over(std::int64_t gpus, std::int64_t per_node) {
  if (gpus <= per_node) return Spread{1, gpus};
  if (per_node < 1 || gpus % per_node != 0) return std::nullopt;
  return Spread{gpus / per_node, per_node};
}

}  // namespace steelyard::search
