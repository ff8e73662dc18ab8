// Operators that Megatron-LM and Transformer Engine carry out as one kernel (or one compiled
// region): what each saves and allocates.
//
// Sources: megatron/core/fusions/{fused_bias_gelu,fused_bias_swiglu,fused_bias_dropout}.py,
// megatron/core/tensor_parallel/cross_entropy.py; TransformerEngine
// pytorch/attention/dot_product_attention/{backends,softmax}.py.
#pragma once

#include <cstdint>

#include "model/graph.h"
#include "step/primitives.h"
#include "step/tape.h"

namespace steelyard::step {

// act(x + bias) of [rows, width], gated: act(first half) * second half. Saves x alone; `bias` may
// be an empty handle.
// `in_products`: both passes are parts of the products beside them.
[[nodiscard]] Tensor bias_activation(Tape& tape, Tensor x, const Tensor& bias, std::int64_t width,
                                     bool gated, bool in_products = false);

// residual + dropout(x + bias). Saves the mask, one byte per element; nothing without dropout.
[[nodiscard]] Tensor bias_dropout_add(Tape& tape, Tensor x, Tensor residual, const Tensor& bias,
                                      std::int64_t width, double probability);

// One of q and k turned by a kernel that reads the table of angles: saves that table alone.
[[nodiscard]] Tensor fused_rotary(Tape& tape, Tensor x, const Tensor& table);

// Cross entropy of logits [rows, vocabulary / tensor ranks] as an autograd function of its own: an
// fp32 copy of the logits becomes the probabilities and then the gradient, in place. `compiled` in
// parts (fusions/fused_cross_entropy.py), the exponentials are a tensor beside that copy.
[[nodiscard]] Tensor vocab_parallel_cross_entropy(Tape& tape, Tensor logits, std::int64_t rows,
                                                  bool compiled);

// Attention by a scaled product, a softmax that scales and masks inside its kernel, dropout and a
// second product: scores are never saved, the softmax's result is.
struct SoftmaxAttention {
  bool widens = false;         // scores to fp32, PyTorch's softmax, and back
  bool global_buffer = false;  // the product's unused first operand is one buffer for ever
  bool adds_bias = false;      // ALiBi: the product's first operand is the bias, one row per head
};
[[nodiscard]] Tensor fused_softmax_attention(Tape& tape, Tensor q, Tensor k, Tensor v,
                                             const AttentionDims& dims, double dropout,
                                             const SoftmaxAttention& how);

}  // namespace steelyard::step
