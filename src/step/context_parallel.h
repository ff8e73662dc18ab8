// Fused attention of a rank that holds some tokens of each sequence, and needs the keys and values
// of all: context parallelism.
//
// Sources: PyTorch torch/distributed/tensor/experimental/_context_parallel/_attention.py
// (_templated_ring_attention and its backward, _SDPAMerger), TransformerEngine
// pytorch/attention/dot_product_attention/context_parallel.py (AttnFuncWithCPAndKVP2P,
// AttnFuncWithCPAndKVAllGather).
//
// Causal attention is balanced: a rank has one chunk from the front of the sequence and one from
// its back, so which tensors are halves differs by rank. Played is the rank that allocates most.
#pragma once

#include "step/primitives.h"

namespace steelyard::step {

// dims.keys: of all ranks of the group, tape.options().context; dims.context > 1.
[[nodiscard]] Tensor attention_over_context(Tape& tape, Tensor q, Tensor k, Tensor v,
                                            const AttentionDims& dims, bool efficient);

}  // namespace steelyard::step
