// What the names in `train.lora.targets` stand for in a model.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/graph.h"

namespace steelyard::step {

// Any linear but the output head: PEFT's word.
inline constexpr std::string_view kAllLinear = "all-linear";

// Experts that are modules of their own (three linears each), and a router that is a plain linear.
[[nodiscard]] bool holds_expert_modules(const model::Operator& op);
[[nodiscard]] bool is_linear_router(const model::Operator& op);

// What an adapter can be put beside, apart from experts: linears, plain convolutions, embeddings,
// routers.
[[nodiscard]] bool is_adaptable(const model::Operator& op);

// "mlp.experts.0.gate_proj.weight" -> "mlp.experts.0.gate_proj".
[[nodiscard]] std::string_view module_of(std::string_view weight);

// Names of linears as targets name them, each once: "all-linear, q_proj, k_proj".
[[nodiscard]] std::string known_targets(const model::Graph& graph);

struct TargetRules {
  bool fused_parts = false;         // q_proj of a fused projection is a target (litgpt)
  bool dispatched_experts = false;  // tokens travel to experts that are multiplied as one
};

// Errors: the first target that names a module which adapters are not built for, and one that names
// nothing and is nearly the name of a module.
[[nodiscard]] Result<void> check_targets(const model::Graph& graph,
                                         const std::vector<std::string>& targets,
                                         const TargetRules& rules);

// Targets that name nothing. PEFT passes over them as long as another one names something.
[[nodiscard]] std::vector<std::string> idle_targets(const model::Graph& graph,
                                                    const std::vector<std::string>& targets,
                                                    bool fused_parts);

// What PEFT takes where a job names none (peft/utils/constants.py,
// TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING), by the names that the model has; of
// diffusers' networks what its training scripts take.
[[nodiscard]] std::vector<std::string> default_targets(const model::Graph& graph);

// The split of a fused projection: `op` splits, perhaps after its output is seen as heads; null
// when it does not.
[[nodiscard]] const model::Operator* split_of(const model::Block& block, const model::Operator& op);

}  // namespace steelyard::step
