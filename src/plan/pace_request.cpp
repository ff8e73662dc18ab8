#include "plan/pace_request.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "plan/host_products.h"
#include "plan/host_step.h"
#include "plan/swap_drive.h"
#include "step/attention_backend.h"

namespace steelyard::plan {
namespace {

// Whether [operators] of the framework's profile says so: launches = "graphs".
bool profile_says(const Request& request, std::string_view key, std::string_view variant) {
  const auto& words = request.constants.framework.operators;
  const auto word = words.find(key);
  return word != words.end() && word->second == variant;
}

// All sockets'.
BytesPerSecond host_memory_of(const Request& request, const facts::Machine& machine) {
  const auto sockets =
      static_cast<double>(std::max<std::int64_t>(machine.host.sockets.value.value_or(1), 1));
  return request.constants.host.host_memory_bandwidth * sockets;
}

double optimizer_kernels_of(const Request& request) {
  const auto& words = request.constants.framework.operators;
  const auto word = words.find("optimizer_kernels");
  return word == words.end() ? 0.0 : std::stod(word->second);
}

pace::Loads loads_of(const Request& request) {
  if (profile_says(request, "loads", "by_blocks_of_64")) return pace::Loads::by_blocks_of_64;
  return profile_says(request, "loads", "16_bytes_since_hopper")
             ? pace::Loads::bytes_16_since_hopper
             : pace::Loads::four_elements;
}

pace::Depthwise depthwise_of(const Request& request) {
  if (profile_says(request, "depthwise", "own")) return pace::Depthwise::own;
  return profile_says(request, "depthwise", "own_channels_first")
             ? pace::Depthwise::own_channels_first
             : pace::Depthwise::library;
}

}  // namespace

pace::Request pace_request(const Request& request, const facts::Job& job,
                           const facts::Machine& machine) {
  const SwapDrive drive = swap_drive(request, machine);
  pace::Request wanted;
  wanted.job = &job;
  wanted.machine = &machine;
  wanted.efficiency = &request.constants.efficiency;
  wanted.host_memory = host_memory_of(request, machine);
  wanted.host_stepping = host_stepping(request, job, machine);
  wanted.host_products = host_products(request, machine);
  wanted.socket_link =
      machine.host.socket_link ? *machine.host.socket_link : request.constants.host.socket_link;
  wanted.launched_as_graphs = profile_says(request, "launches", "graphs");
  wanted.unaligned_on_vector_units = profile_says(request, "unaligned_products", "vector");
  wanted.cudnn_attention = step::runs_cudnn(request.constants.framework, job, machine.gpu);
  wanted.attention_before_cudnn_9 = profile_says(request, "cudnn_attention", "before_9");
  wanted.loads = loads_of(request);
  wanted.depthwise = depthwise_of(request);
  wanted.optimizer_kernels = optimizer_kernels_of(request);
  wanted.drive_read = drive.read;
  wanted.drive_write = drive.write;
  wanted.workshop = request.workshop.get();
  return wanted;
}

}  // namespace steelyard::plan
