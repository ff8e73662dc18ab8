// The first header of the room: the program of a rank + machine -> seconds.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/plan.h"
#include "step/program.h"

namespace steelyard::step {
class Workshop;
}

namespace steelyard::pace {

// What a node's processors multiply, all cores together; nothing: not known.
struct HostProducts {
  std::optional<FlopsPerSecond> wide, half;  // fp32; bf16 and fp16
};

// Whose kernels convolve each channel for itself: the library's; the framework's own where tensors
// of 32 bits have their channels first; or wherever they have 32 bits.
enum class Depthwise : std::uint8_t { library, own_channels_first, own };

// What a thread of the framework's own kernels loads at once ([operators] loads of a profile).
enum class Loads : std::uint8_t { by_blocks_of_64, four_elements, bytes_16_since_hopper };

struct Request {
  const step::Program* program = nullptr;
  const facts::Job* job = nullptr;  // resolved
  const facts::Machine* machine = nullptr;
  const facts::EfficiencyConstants* efficiency = nullptr;
  BytesPerSecond host_memory{};  // of a node's processors; only what is offloaded needs it
  // What the threads that step on the host move of it; 0: all.
  BytesPerSecond host_stepping{};
  HostProducts host_products{};  // only companions on the CPU need it
  BytesPerSecond socket_link{};  // one way, where a host has several sockets; 0: no limit
  // Kernels are launched as CUDA graphs: the host is no limit.
  bool launched_as_graphs = false;
  // Products of operands that are not aligned use no matrix units (cuBLAS before 11).
  bool unaligned_on_vector_units = false;
  // cuDNN's attention kernels are those of 8.9.7 and earlier.
  bool attention_before_cudnn_9 = false;
  Loads loads = Loads::four_elements;
  Depthwise depthwise = Depthwise::library;
  // What the job calls "flash" is cuDNN's fused attention here (step::runs_cudnn).
  bool cudnn_attention = false;
  // Of one parameter in a loop of the framework's own optimizer; 0: torch's.
  double optimizer_kernels = 0.0;
  // Arithmetic of each pipeline stage over that of this rank; empty: all alike.
  std::vector<double> stage_shares = {};
  Flops model_flops_per_sample;                // forward and backward, no recomputation
  std::int64_t tokens_per_sample = 0;          // 0: not text
  std::int64_t samples_per_step = 0;           // of all ranks; 0: the job's global batch
  BytesPerSecond drive_read{}, drive_write{};  // of a node's drive; only what is swapped needs them
  step::Workshop* workshop = nullptr;          // of the program's plan; null: none
};

// Seconds of one optimizer step without data stalls (the composing room adds them). When the
// machine lacks a figure the step needs, the answer has no step and names what is missing.
[[nodiscard]] Result<facts::PacePlan> step_time(const Request& request);

}  // namespace steelyard::pace
