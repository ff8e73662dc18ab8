#include "vram/pool.h"

#include <algorithm>
#include <cmath>

namespace steelyard::vram {

Bytes pool_on(Bytes capacity, const facts::AllocatorHabits& habits,
              const facts::DeviceMemoryConstants& device) {
  if (habits.pool_share) {
    return Bytes(static_cast<std::int64_t>(static_cast<double>(capacity.value()) *
                                           habits.pool_share->value()));
  }
  return std::max(Bytes(), capacity - device.context - device.pool_reserve);
}

Bytes beside_pool(Bytes pool, Bytes outside, const facts::AllocatorHabits& habits,
                  const facts::DeviceMemoryConstants& device) {
  if (!habits.pool_share) return std::max(outside, device.context + device.pool_reserve);
  const double card = std::ceil(static_cast<double>(pool.value()) / habits.pool_share->value());
  return std::max(outside, Bytes(checked_round(card)) - pool);
}

Bytes paged_out(Bytes used, Bytes managed, const std::optional<Bytes>& capacity) {
  if (!capacity) return {};
  return std::clamp(used - *capacity, Bytes(), managed);
}

}  // namespace steelyard::vram
