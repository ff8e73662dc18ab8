// How much of a card a framework with one pool takes, how large a card a pool needs, and what of
// managed memory a card has no room for.
#pragma once

#include <optional>

#include "base/quantity.h"
#include "facts/constants.h"

namespace steelyard::vram {

// The pool on a card of `capacity`. TensorFlow: what is free beside the context but the reserve
// (gpu_device.cc, SingleVirtualDeviceMemoryLimit); XLA's clients: a share of the whole card
// (xla/pjrt/gpu/gpu_helpers.cc, CreateBFCAllocator).
[[nodiscard]] Bytes pool_on(Bytes capacity, const facts::AllocatorHabits& habits,
                            const facts::DeviceMemoryConstants& device);

// What the smallest card with such a pool has besides the pool; `outside` of it is in use.
[[nodiscard]] Bytes beside_pool(Bytes pool, Bytes outside, const facts::AllocatorHabits& habits,
                                const facts::DeviceMemoryConstants& device);

// Managed memory for which the rest leaves no room: the driver moves its pages to the host.
[[nodiscard]] Bytes paged_out(Bytes used, Bytes managed, const std::optional<Bytes>& capacity);

}  // namespace steelyard::vram
