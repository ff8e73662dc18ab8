#include "plan/profile_words.h"

#include <algorithm>
#include <string>

namespace steelyard::plan {

BytesPerSecond socket_link_of(const Request& request, const facts::Plan& plan) {
  return plan.machine.host.socket_link ? *plan.machine.host.socket_link
                                       : request.constants.host.socket_link;
}

// Whether [operators] of the framework's profile says so: launches = "graphs".
bool profile_says(const Request& request, std::string_view key, std::string_view variant) {
  const auto& words = request.constants.framework.operators;
  const auto word = words.find(key);
  return word != words.end() && word->second == variant;
}

// All sockets' memory; what one thread of each rank moves of it, where the framework's launcher
// leaves a rank one (a copy reads and writes).
BytesPerSecond host_memory_of(const Request& request, const facts::Plan& plan) {
  const auto sockets =
      static_cast<double>(std::max<std::int64_t>(plan.machine.host.sockets.value.value_or(1), 1));
  const BytesPerSecond all = request.constants.host.host_memory_bandwidth * sockets;
  // Another engine's step is its own, with threads of its own: DeepSpeed's over Megatron's model.
  const bool own_engine = !plan.job.megatron || plan.job.megatron->gradient_buffer;
  if (!own_engine || !profile_says(request, "host_step", "one_thread")) return all;
  const auto ranks = static_cast<double>(plan.job.machine.gpus.value_or(plan.machine.gpus));
  return std::min(all, request.constants.host.thread_copy * (2.0 * ranks));
}

double optimizer_kernels_of(const Request& request) {
  const auto& words = request.constants.framework.operators;
  const auto word = words.find("optimizer_kernels");
  return word == words.end() ? 0.0 : std::stod(word->second);
}

bool multiplies_unaligned_on_vector_units(const Request& request) {
  return profile_says(request, "unaligned_products", "vector");
}

bool has_attention_before_cudnn_9(const Request& request) {
  return profile_says(request, "cudnn_attention", "before_9");
}

bool has_loads_of_16_bytes(const Request& request) {
  return profile_says(request, "loads", "16_bytes_since_hopper");
}

pace::Depthwise depthwise_of(const Request& request) {
  if (profile_says(request, "depthwise", "own")) return pace::Depthwise::own;
  return profile_says(request, "depthwise", "own_channels_first")
             ? pace::Depthwise::own_channels_first
             : pace::Depthwise::library;
}

}  // namespace steelyard::plan
