// Linears with low-rank adapters as single autograd functions: Unsloth's LoRA_QKV, LoRA_W and
// LoRA_MLP, which fms-acceleration took over.
//
// Sources: unslothai/unsloth unsloth/kernels/fast_lora.py, foundation-model-stack/fms-acceleration
// plugins/fused-ops-and-kernels (unsloth_lora/bnb/fast_lora.py, utils.py matmul_lora; models/
// utils.py: which modules are fused). A function keeps its input and, of each adapter with dropout,
// the input behind the dropout; it writes the input's gradient over the input.
#pragma once

#include <vector>

#include "model/graph.h"
#include "step/operators.h"

namespace steelyard::step {

// Replaces linears of the block: three of one input that all have adapters (q, k, v), one behind
// attention (o), and gate, activation, up and down when all three linears have adapters.
void fuse_adapted_linears(model::Block& block);

// adapted_linears, adapted_mlp.
[[nodiscard]] std::vector<Tensor> run_fused_adapters(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
