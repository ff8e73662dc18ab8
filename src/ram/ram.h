// The first header of the room: job, ranks and loaders -> host bytes by kind through the phases.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/plan.h"
#include "step/program.h"

namespace steelyard::ram {

struct Request {
  const facts::Job* job = nullptr;  // resolved
  const facts::Machine* machine = nullptr;
  const step::StateSizes* states = nullptr;
  const facts::HostConstants* constants = nullptr;
  Bytes sample_bytes;             // one sample in host memory, ready for the GPU
  Bytes offloaded_activations{};  // of one rank, between forward and backward
  Bytes paged_states{};           // of one rank, moved to the host by a full card
  // The framework's words (FrameworkProfile::operators); null: none.
  const std::map<std::string, std::string, std::less<>>* words = nullptr;
  // What a rank's tensors take at the peak of a step, where they lie in host memory: a machine
  // without accelerators (facts/host.h).
  std::optional<facts::VramBytes> tensors{};
};

// Host memory of one node, phase by phase. Rules: docs/model/host-memory.md.
[[nodiscard]] Result<facts::RamPlan> host_memory(const Request& request);

// What PyTorch's pinned allocator takes for a request: the next power of two.
[[nodiscard]] Bytes pinned(Bytes requested);

}  // namespace steelyard::ram
