// DeepSpeed's own estimates of the memory of model states, formula for formula: a cross-check of
// the offload rules, and what its users know (deepspeedai/DeepSpeed@edaa722,
// runtime/zero/stage_1_and_2.py estimate_zero2_model_states_mem_needs, runtime/zero/stage3.py
// estimate_zero3_model_states_mem_needs).
#pragma once

#include <cstdint>

#include "base/quantity.h"

namespace steelyard::ram {

struct DeepSpeedCluster {
  std::int64_t gpus_per_node = 1;
  std::int64_t nodes = 1;
};

struct DeepSpeedEstimate {
  Bytes cpu;  // per node, by the source's naming; see estimate_zero2 for what it really is
  Bytes gpu;  // per GPU
};

struct DeepSpeedOffload {
  bool optimizer = true;
  bool parameters = true;  // ZeRO-3, only with the optimizer
  bool zero_init = true;   // ZeRO-3: the model is created in parts
};

// What the estimators multiply by for buffers beyond the states (additional_buffer_factor).
inline constexpr double kDeepSpeedBufferFactor = 1.5;

// The source multiplies by the GPUs of the whole job (4 N), although its text says per node: on
// several nodes the figure is as many times too large. Kept as it is.
[[nodiscard]] DeepSpeedEstimate estimate_zero2(Parameters parameters, DeepSpeedCluster cluster,
                                               bool offload_optimizer);

[[nodiscard]] DeepSpeedEstimate estimate_zero3(Parameters parameters, Parameters largest_layer,
                                               DeepSpeedCluster cluster, DeepSpeedOffload offload);

}  // namespace steelyard::ram
