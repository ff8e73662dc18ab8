// What the framework's profile ([operators]) and the constants say of how kernels and the host run,
// as src/pace asks for it.
#pragma once

#include <string_view>

#include "base/quantity.h"
#include "facts/plan.h"
#include "pace/pace.h"
#include "plan/plan.h"

namespace steelyard::plan {

[[nodiscard]] bool profile_says(const Request& request, std::string_view key,
                                std::string_view variant);

// Between sockets, one way.
[[nodiscard]] BytesPerSecond socket_link_of(const Request& request, const facts::Plan& plan);
// All sockets' memory; what one thread of each rank moves of it, where the framework's launcher
// leaves a rank one (a copy reads and writes).
[[nodiscard]] BytesPerSecond host_memory_of(const Request& request, const facts::Plan& plan);

// As the members of pace::Request say.
[[nodiscard]] double optimizer_kernels_of(const Request& request);
[[nodiscard]] bool multiplies_unaligned_on_vector_units(const Request& request);
[[nodiscard]] bool has_attention_before_cudnn_9(const Request& request);
[[nodiscard]] bool has_loads_of_16_bytes(const Request& request);
[[nodiscard]] pace::Depthwise depthwise_of(const Request& request);

}  // namespace steelyard::plan
