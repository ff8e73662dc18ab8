// Which operators of a block run again in backward: the parts of a layer that Megatron-LM's
// --recompute-modules names, and the modules that a network of one block checkpoints.
#pragma once

#include <string>
#include <vector>

#include "facts/constants.h"
#include "facts/job.h"
#include "model/graph.h"

namespace steelyard::step {

// Operators [first, last) of a block that run again in backward.
struct RecomputedPart {
  std::size_t first = 0, last = 0;
  // Its results are let go behind this operator and made again when that one's gradient is known;
  // 0: they are kept.
  std::size_t hook = 0;
  std::vector<model::TensorRef> inputs, outputs;
  bool trains = false;  // weights of its own get a gradient, whether its inputs do or not
};

// `modules`: layernorm, mla_up_proj, mlp, moe, shared_experts; or paths of modules, "self_attn",
// "down_blocks.*.resnets.*" (a star is any number), each of which is a part. core_attn and moe_act
// are no parts of their own. A norm inside of the linear behind it is not recomputed.
//
// Source: NVIDIA/Megatron-LM d98e8a64, core/transformer/transformer_layer.py,
// multi_latent_attention.py, moe/moe_layer.py.
[[nodiscard]] std::vector<RecomputedPart> recomputed_parts(const model::Block& block,
                                                           const std::vector<std::string>& modules);

// Of a network of one block under train.recompute = "full": the word of that name in the
// framework's profile, paths separated by ", ".
[[nodiscard]] std::vector<std::string> checkpointed_modules(const facts::FrameworkProfile& profile,
                                                            const facts::RecomputeKeys& keys);

// The same of a layer (word `checkpointed_layer_modules`): each of them is a checkpoint of its own,
// where none is named the layer is one.
[[nodiscard]] std::vector<std::string> checkpointed_layer_modules(
    const facts::FrameworkProfile& profile, const facts::RecomputeKeys& keys);

}  // namespace steelyard::step
