// Shared by the two ways of multiplying in fp8.
#pragma once

#include <vector>

#include "step/primitives_fp8.h"
#include "step/tape.h"

namespace steelyard::step {

struct Fp8Cast {
  Tensor data, scale;
};

// transformer_engine/pytorch: module/linear.py and grouped_linear.py. `weights` [outputs, inputs]
// each; x [rows, inputs] is divided among them.
[[nodiscard]] Tensor engine_linear(Tape& tape, const Tensor& x, const std::vector<Tensor>& weights,
                                   const Tensor& bias, std::int64_t inputs, std::int64_t outputs,
                                   bool keeps_input, FusedCasts fused = {});

// One layout of x with its scales.
[[nodiscard]] Tensor engine_cast(Tape& tape, const Tensor& x);

// Bytes of one layout, scales included.
[[nodiscard]] Bytes fp8_layout_bytes(Fp8Scaling scaling, std::int64_t numel, std::int64_t last,
                                     bool weight);

}  // namespace steelyard::step
