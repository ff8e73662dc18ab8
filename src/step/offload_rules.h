// offload.*: which states of a job lie in host memory, and which jobs cannot have it so.
#pragma once

#include "base/error.h"
#include "facts/job.h"

namespace steelyard::step {

// Of the states of one rank, what lies in host memory (or passes through it to NVMe).
struct HostStates {
  bool parameters = false;
  bool optimizer = false;  // with the master copy; the host's processors take the step
  bool gradients = false;  // each goes to the host as soon as it is reduced
};

// DeepSpeed moves gradients with the optimizer (stage_1_and_2.py,
// async_inplace_copy_grad_to_fp32_buffer_from_gpu; stage3.py, partition_grads; ZeRO-1 at the step).
// FSDP has one switch for all three (CPUOffloadPolicy, CPUOffload(offload_params=True)).
[[nodiscard]] HostStates host_states(const facts::Job& job);

// Errors: a combination that no framework has, or one whose rules are not built yet.
[[nodiscard]] Result<void> check_offload(const facts::Job& job);

}  // namespace steelyard::step
