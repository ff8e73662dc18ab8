#include "vram/allocators.h"

#include <algorithm>

#include "vram/allocator_implementation.h"
#include "vram/bfc_allocator.h"
#include "vram/pool.h"

namespace steelyard::vram {

namespace {

AllocatorSettings settings_from(const facts::AllocatorConf& conf) {
  AllocatorSettings settings;
  settings.expandable_segments = conf.expandable_segments;
  settings.roundup_power2_divisions = conf.roundup_power2_divisions;
  settings.roundup_by_interval = conf.roundup_by_interval;
  settings.max_split_size = conf.max_split_size;
  if (conf.max_non_split_rounding) settings.max_non_split_rounding = *conf.max_non_split_rounding;
  return settings;
}

}  // namespace

std::unique_ptr<Allocator> allocator_of(const Request& request) {
  const facts::DeviceMemoryConstants& device = *request.device;
  const Bytes outside = device.context + device.collectives(request.program->communicators);
  if (request.habits.kind == facts::AllocatorKind::bfc) {
    BfcSettings pool;
    if (request.capacity) pool.limit = pool_on(*request.capacity, request.habits, device);
    return std::make_unique<BfcAllocator>(pool);
  }
  AllocatorSettings settings;
  if (request.conf) settings = settings_from(*request.conf);
  if (request.capacity) settings.device_bytes = std::max(Bytes(), *request.capacity - outside);
  return std::make_unique<CachingAllocator>(settings);
}

CachingAllocator::Implementation* blocks_of(const Request& request, Allocator& allocator) {
  if (request.habits.kind != facts::AllocatorKind::caching) return nullptr;
  if (request.timeline || request.expand_all) return nullptr;
  auto& blocks = static_cast<CachingAllocator&>(allocator).implementation();
  return blocks.has_plain_blocks() ? &blocks : nullptr;
}

}  // namespace steelyard::vram
