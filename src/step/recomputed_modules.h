// Which operators of a layer Megatron-LM's --recompute-modules names.
#pragma once

#include <string>
#include <vector>

#include "model/graph.h"

namespace steelyard::step {

// Operators [first, last) of a block that run again in backward.
struct RecomputedPart {
  std::size_t first = 0, last = 0;
  // Its results are let go behind this operator and made again when that one's gradient is known;
  // 0: they are kept.
  std::size_t hook = 0;
  std::vector<model::TensorRef> inputs, outputs;
};

// `modules`: layernorm, mla_up_proj, mlp, moe, shared_experts; others are no parts of their own.
// A norm inside of the linear behind it is not recomputed.
//
// Source: NVIDIA/Megatron-LM d98e8a64, core/transformer/transformer_layer.py,
// multi_latent_attention.py, moe/moe_layer.py.
[[nodiscard]] std::vector<RecomputedPart> recomputed_parts(const model::Block& block,
                                                           const std::vector<std::string>& modules);

}  // namespace steelyard::step
