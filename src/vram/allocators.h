// The allocator that a request asks for.
#pragma once

#include <memory>

#include "vram/allocator.h"
#include "vram/caching_allocator.h"
#include "vram/vram.h"

namespace steelyard::vram {

// What the framework takes at once; without `capacity` the pool is as large as the job needs.
[[nodiscard]] std::unique_ptr<Allocator> allocator_of(const Request& request);
// Its blocks, by which layers are recalled (prompter.h): where nobody asks for more than the peak.
[[nodiscard]] CachingAllocator::Implementation* blocks_of(const Request& request,
                                                          Allocator& allocator);

}  // namespace steelyard::vram
