// ATen's operators for pictures and for gathering by index, as the tape sees them. See primitives.h
// for what a function here says and where that is read.
//
// Convolutions run in cuDNN. Its workspaces are chosen at run time from what is free (Conv_v8.cpp)
// and are unknown here: no bytes are counted for them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "step/tape.h"

namespace steelyard::step {

// --- Pictures [B,C,h,w] ------------------------------------------------------------------------

struct ConvDims {
  std::int64_t samples = 1;              // B
  std::int64_t inputs = 1, outputs = 1;  // channels
  std::int64_t pixels = 1;               // h' * w' of the result
  std::int64_t window = 1;               // kh * kw
  std::int64_t groups = 1;
  std::int64_t spread = 0;  // transposed: h * w of the input, each pixel of which is spread
  bool computed = false;    // its weight is no parameter but a tensor of the graph
};
// Saves its input and its weight.
[[nodiscard]] Tensor conv(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
                          const ConvDims& dims);
// Training: saves its input, and mean and 1/deviation of each channel in fp32.
[[nodiscard]] Tensor batch_norm(Tape& tape, Tensor x, const Tensor& weight, const Tensor& bias,
                                std::int64_t channels);
// Saves its input, and mean and 1/deviation of each group in the input's type; fp32 under autocast.
[[nodiscard]] Tensor group_norm(Tape& tape, Tensor x, const Tensor& weight, const Tensor& bias,
                                std::int64_t samples, std::int64_t channels, std::int64_t groups);
// Saves its input and an int64 per element of the result.
[[nodiscard]] Tensor max_pool(Tape& tape, Tensor x, std::int64_t numel);
// Saves its input. Windows, or as many parts as the result has pixels.
[[nodiscard]] Tensor average_pool(Tape& tape, Tensor x, std::int64_t numel);
// Saves nothing; fp32 under autocast.
[[nodiscard]] Tensor upsample_nearest(Tape& tape, Tensor x, std::int64_t numel);

// Copies that save nothing: turned round, with zeros around or cut.
[[nodiscard]] Tensor roll(Tape& tape, Tensor x);
[[nodiscard]] Tensor pad(Tape& tape, Tensor x, std::int64_t numel);
// x times a random factor of each sample, which is saved (timm and torchvision write it so).
[[nodiscard]] Tensor drop_path(Tape& tape, Tensor x, std::int64_t samples);
// Side by side; of a single part a copy.
[[nodiscard]] Tensor cat(Tape& tape, std::vector<Tensor> parts);

// --- Into the storage of the first operand -----------------------------------------------------

[[nodiscard]] Tensor relu_in_place(Tape& tape, Tensor x);  // saves its result
// Of activations whose derivative needs what is overwritten: a copy of it is made and saved
// (VariableType of silu_, hardtanh_, hardswish_ ...: original_self).
[[nodiscard]] Tensor activation_in_place(Tape& tape, std::string_view name, Tensor x);
[[nodiscard]] Tensor add_in_place(Tape& tape, Tensor into, Tensor other);

// --- Weights as operands -----------------------------------------------------------------------

// A view of a weight that repeats it `times`; the gradient is summed.
[[nodiscard]] Tensor expand(Tape& tape, const Tensor& weight, std::int64_t times);

// --- By index ----------------------------------------------------------------------------------

struct TopK {
  Tensor values, indices;  // [T,k]; indices int64
};
TopK topk(Tape& tape, Tensor x, std::int64_t last, std::int64_t k);  // saves the indices
[[nodiscard]] Tensor sum_last(Tape& tape, Tensor x, std::int64_t last);
// x[a, b, ...]: saves the indices; the gradient is put into zeros of x's shape.
[[nodiscard]] Tensor index(Tape& tape, const Tensor& x, const std::vector<Tensor>& indices,
                           std::int64_t numel);
// torch.gather along the last dimension: saves the indices, and x for its sizes.
[[nodiscard]] Tensor gather(Tape& tape, const Tensor& x, const Tensor& indices, std::int64_t numel);
// into.index_add_(0, rows, source): saves the rows and the whole source.
[[nodiscard]] Tensor index_add_in_place(Tape& tape, Tensor into, const Tensor& rows, Tensor source);

// --- Loss --------------------------------------------------------------------------------------

// smooth_l1_loss of each element: saves both.
[[nodiscard]] Tensor smooth_l1_loss(Tape& tape, Tensor prediction, Tensor target);
// Cross entropy of each row, reduction="none": saves the log-probabilities.
[[nodiscard]] Tensor cross_entropy_of_rows(Tape& tape, Tensor logits, const Tensor& labels);
// Saves both; fp32 under autocast. The result is a scalar.
[[nodiscard]] Tensor mse_loss(Tape& tape, Tensor prediction, Tensor target);

}  // namespace steelyard::step
