// Frameworks that hold short parameters, fp32 masters and one buffer of gradients themselves.
#pragma once

#include "facts/constants.h"
#include "facts/job.h"

namespace steelyard::plan {

// Where the profile says [operators] states = "persistent_buffers" and no import says more: what
// Megatron-LM holds under --bf16 or --fp16, and with parallel.sharding = "zero1" under
// --use-distributed-optimizer. Other precisions, other shardings and other frameworks stay as they
// are. Source: NVIDIA/Megatron-LM d98e8a64, megatron/training/arguments.py (bf16: gradients are
// accumulated and reduced in fp32; fp16: in fp16), megatron/core/optimizer/optimizer.py
// (Float16OptimizerWithFloat16Params), megatron/core/transformer/module.py (Float16Module).
void resolve_states(facts::Job& job, const facts::FrameworkProfile& framework);

}  // namespace steelyard::plan
