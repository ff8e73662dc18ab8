// Queries, keys and values of multi-latent attention: what lies between the up-projections and the
// attention itself (OperatorKind::latent_heads).
#pragma once

#include <vector>

#include "step/operators.h"

namespace steelyard::step {

// q, k, v. Source: NVIDIA/Megatron-LM d98e8a64, core/transformer/multi_latent_attention.py
// (qkv_up_proj_and_rope_apply), core/models/common/embeddings/rope_utils.py, and as one kernel
// core/fusions/fused_mla_yarn_rope_apply.py.
[[nodiscard]] std::vector<Tensor> latent_heads(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
