// PYTORCH_CUDA_ALLOC_CONF as the vectors spell it: "key:value,key:[a:b,c:d]".
#pragma once

#include <string_view>

#include "vram/caching_allocator.h"

namespace steelyard::testing {

// Throws std::invalid_argument for a key that the simulation does not know.
[[nodiscard]] vram::AllocatorSettings settings_from_conf(std::string_view conf);

}  // namespace steelyard::testing
