// Kernels that Liger, Unsloth and fms-acceleration put in place of a model's own code: what their
// autograd functions save, and where they write their gradients.
//
// Sources: linkedin/Liger-Kernel src/liger_kernel/ops (rms_norm.py, rope.py, swiglu.py,
// fused_linear_cross_entropy.py), unslothai/unsloth unsloth/kernels.
#pragma once

#include <cstdint>

#include "step/tape.h"

namespace steelyard::step {

// Saves its input and a reciprocal root per row (fp32); the gradient is written over the arriving
// one.
[[nodiscard]] Tensor in_place_rms_norm(Tape& tape, Tensor x, const Tensor& weight,
                                       std::int64_t last);
// Turns x where it lies, forward and backward; saves the tables.
[[nodiscard]] Tensor in_place_rotary(Tape& tape, const Tensor& x, const Tensor& cosine,
                                     const Tensor& sine);
// silu(gate) * up as one kernel: saves both, and writes both gradients over them.
[[nodiscard]] Tensor fused_swiglu(Tape& tape, Tensor gate, Tensor up);

// Output projection and cross entropy in chunks of rows, without the whole logits: the gradients of
// x and of the weight are computed in forward and are all that is kept.
// x [rows, hidden], weight [vocabulary, hidden].
[[nodiscard]] Tensor fused_linear_cross_entropy(Tape& tape, const Tensor& x, const Tensor& weight,
                                                const Tensor& labels, std::int64_t rows);

// Cross entropy of this rank's share of the vocabulary, [rows, V / ranks], as DTensor's
// loss_parallel() runs it: keeps fp32 log-probabilities; 12 B per logit live besides in backward.
[[nodiscard]] Tensor sharded_cross_entropy(Tape& tape, Tensor logits, std::int64_t rows);

}  // namespace steelyard::step
