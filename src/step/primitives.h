// PyTorch's operators as the tape sees them: what each allocates, what it saves for its derivative
// and what the derivative allocates. One function per ATen operator, named after it.
//
// Sources: tools/autograd/derivatives.yaml of PyTorch 2.6 (what is saved), the CUDA kernels named
// at each function (temporaries), aten/src/ATen/autocast_mode.h (types under autocast). `last` is
// the size of the last dimension, `rows` the product of the others.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "step/tape.h"

namespace steelyard::step {

// --- Types and views -------------------------------------------------------------------------

[[nodiscard]] Tensor to(Tape& tape, Tensor x, DType dtype);
// The type that autocast's list for this operator asks for: compute type or fp32; x itself without.
[[nodiscard]] Tensor to_compute(Tape& tape, Tensor x);
[[nodiscard]] Tensor to_fp32_if_autocast(Tape& tape, Tensor x);
// The same storage under another shape; a gradient passes through unchanged.
[[nodiscard]] Tensor view(Tensor x, bool dense);
// [B,S,n*d] as [B,n,S,d]: a gradient that lies head by head is copied back, one that lies token by
// token is a view.
[[nodiscard]] Tensor split_heads(Tape& tape, Tensor x, std::int64_t heads);
// Parts of the last dimension as views of one storage; the gradients are concatenated.
[[nodiscard]] std::vector<Tensor> split(Tape& tape, const Tensor& x,
                                        const std::vector<std::int64_t>& numels);
// One part alone (x[..., a:b]): its gradient is padded with zeros to the whole.
[[nodiscard]] Tensor slice(Tape& tape, const Tensor& x, std::int64_t numel);
[[nodiscard]] Tensor contiguous(Tape& tape, Tensor x);
[[nodiscard]] Tensor cat(Tape& tape, Tensor a, Tensor b);
// expand().reshape(): `times` copies side by side (repeat_kv); times 1 is x itself.
[[nodiscard]] Tensor repeat(Tape& tape, Tensor x, std::int64_t times);

// --- Pointwise -------------------------------------------------------------------------------

[[nodiscard]] Tensor add(Tape& tape, Tensor a, Tensor b);
[[nodiscard]] Tensor add_constant(Tape& tape, Tensor x);  // saves nothing; also subtraction
[[nodiscard]] Tensor mul(Tape& tape, Tensor a, Tensor b);
[[nodiscard]] Tensor mul_constant(Tape& tape, Tensor x);  // also division by a constant, negation
[[nodiscard]] Tensor pow(Tape& tape, Tensor x);           // x^2, x^3: saves x; fp32 under autocast
[[nodiscard]] Tensor mean(Tape& tape, Tensor x, std::int64_t last);
[[nodiscard]] Tensor rsqrt(Tape& tape, Tensor x);
[[nodiscard]] Tensor tanh(Tape& tape, Tensor x);     // saves its output
[[nodiscard]] Tensor sigmoid(Tape& tape, Tensor x);  // saves its output
[[nodiscard]] Tensor relu(Tape& tape, Tensor x);     // saves its output
[[nodiscard]] Tensor gelu(Tape& tape, Tensor x);     // fused, erf or tanh: saves its input
// TorchScript's x * 0.5 * (1.0 + erf(x / 1.41421)), one fused kernel that also writes the quotient,
// the half and the sum for backward (autodiff's symbolic_script.cpp: mul keeps its factors, erf its
// argument). They go to `captured` where it is given, else to the node.
[[nodiscard]] Tensor scripted_gelu(Tape& tape, Tensor x, std::vector<Tensor>* captured);
[[nodiscard]] Tensor silu(Tape& tape, Tensor x);  // saves its input
// relu6 (hardtanh), hardswish, hardsigmoid: save their input.
[[nodiscard]] Tensor saving_input(Tape& tape, std::string_view name, Tensor x);
[[nodiscard]] Tensor dropout(Tape& tape, Tensor x, double probability);
// where(mask, x, constant); the mask is saved.
[[nodiscard]] Tensor where(Tape& tape, const Tensor& mask, Tensor x);

// --- Reductions and normalisations -----------------------------------------------------------

// Compiled code keeps maximum and sum of each row of `last` elements (0: not counted).
[[nodiscard]] Tensor softmax(Tape& tape, Tensor x, DType result, std::int64_t last = 0);
[[nodiscard]] Tensor layer_norm(Tape& tape, Tensor x, const Tensor& weight, const Tensor& bias,
                                std::int64_t last);
// F.rms_norm as one kernel: saves its input and the reciprocal root per row (fp32).
[[nodiscard]] Tensor fused_rms_norm(Tape& tape, Tensor x, const Tensor& weight, std::int64_t last);

// --- Matrices --------------------------------------------------------------------------------

// A weight as a product uses it: under autocast its cached copy in the compute type.
[[nodiscard]] Tensor product_weight(Tape& tape, const Tensor& weight);
// x [rows, inputs] times weight [outputs, inputs], plus bias when there is one.
[[nodiscard]] Tensor linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
                            std::int64_t inputs, std::int64_t outputs);
// Batched product of `batch` matrices m x k and k x n.
struct MatmulViews {
  bool second_transposed = false;  // b is a transposed view: its gradient comes as one
  bool result_transposed = false;  // the caller transposes the result: its gradient comes as a view
  bool one_sample = false;         // views of a batch of one need no copy
};
[[nodiscard]] Tensor matmul(Tape& tape, Tensor a, Tensor b, std::int64_t batch, std::int64_t m,
                            std::int64_t n, std::int64_t k, MatmulViews views = {});
[[nodiscard]] Tensor embedding(Tape& tape, const Tensor& ids, const Tensor& table,
                               std::int64_t hidden);

struct AttentionDims {
  std::int64_t samples = 1;  // B
  std::int64_t heads = 1, kv_heads = 1, head_dim = 1;
  std::int64_t value_dim = 0;          // of a value's head; 0: head_dim
  std::int64_t queries = 1, keys = 1;  // tokens
  // Share of the scores really computed: 0.5 for a causal kernel, less with a window.
  double computed_share = 1.0;
  double whole_share = 1.0;  // the same without the window
  std::int64_t context = 1;  // ranks whose keys and values come together; `keys` are all of them
  [[nodiscard]] std::int64_t values() const { return value_dim > 0 ? value_dim : head_dim; }
};
// Fused scaled-dot-product attention: flash and cuDNN keep one statistic per query, the
// memory-efficient kernel one per query rounded up to 32.
// `bias`: a mask that is learned, of all samples, for the memory-efficient kernel.
[[nodiscard]] Tensor fused_attention(Tape& tape, Tensor q, Tensor k, Tensor v,
                                     const AttentionDims& dims, bool efficient, Tensor bias = {});
// What the kernel of its derivative allocates besides results (flash_attn/flash_api.cpp,
// mem_eff_attention/kernel_backward.h).
[[nodiscard]] std::vector<Tensor> attention_workspace(Tape& tape, const AttentionDims& dims,
                                                      bool efficient, DType dtype);

// --- Between the ranks of a tensor-parallel group ---------------------------------------------

[[nodiscard]] Tensor copy_to_ranks(Tape& tape, Tensor x);
[[nodiscard]] Tensor sum_over_ranks(Tape& tape, Tensor x);  // in place
// `numel` of all tokens. With `regather` products keep the rank's own part and gather again in
// backward (Megatron-LM), otherwise they keep all tokens (DTensor).
[[nodiscard]] Tensor gather_sequence(Tape& tape, Tensor x, std::int64_t numel, bool regather);
[[nodiscard]] Tensor scatter_sequence(Tape& tape, Tensor x, std::int64_t numel);

// --- Loss ------------------------------------------------------------------------------------

// F.cross_entropy of logits [rows, vocabulary]; the result is a scalar.
[[nodiscard]] Tensor cross_entropy(Tape& tape, Tensor logits, const Tensor& labels,
                                   std::int64_t rows);

// The same as one kernel (flash-attn's CrossEntropyLoss, apex's xentropy): saves the logits
// themselves and a log-sum-exp per row; the gradient is a tensor of its own, or `in_place` (Liger,
// Unsloth) written over the logits.
[[nodiscard]] Tensor fused_cross_entropy(Tape& tape, Tensor logits, const Tensor& labels,
                                         std::int64_t rows, bool in_place);

// What a product moves besides when it adds its result of `numel` elements, of type `made`, to
// lasting gradients (TapeOptions::accumulates_into).
[[nodiscard]] Bytes added_traffic(const Tape& tape, std::int64_t numel, facts::DType made);

}  // namespace steelyard::step
