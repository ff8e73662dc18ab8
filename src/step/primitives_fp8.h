// Linears in fp8: what the casts allocate, what is saved, what backward casts again.
#pragma once

#include "step/tape.h"

namespace steelyard::step {

// y = x w^T (+ bias), x [rows, inputs], w [outputs, inputs], all three products in fp8, as
// Arithmetic::fp8 says. `keeps_input`: x is kept as it came instead of its cast (somebody else
// keeps it anyway). Errors: none.
[[nodiscard]] Tensor fp8_linear(Tape& tape, const Tensor& x, const Tensor& weight,
                                const Tensor& bias, std::int64_t inputs, std::int64_t outputs,
                                bool keeps_input);

// Casts that the products before them make themselves: of what comes in, of the gradient.
struct FusedCasts {
  bool input = false, gradient = false;
};

// The same for rows grouped by matrix: Transformer Engine's GroupedLinear.
[[nodiscard]] Tensor fp8_grouped_linear(Tape& tape, const Tensor& x,
                                        const std::vector<Tensor>& weights, std::int64_t inputs,
                                        std::int64_t outputs, FusedCasts fused = {});

// Both layouts of x, of rows of `last`, by Transformer Engine: of attention's operands.
struct EngineCasts {
  Tensor rows, columns;
};
[[nodiscard]] EngineCasts engine_casts(Tape& tape, const Tensor& x, std::int64_t last);

// x cast, one layout; the result stands for x and holds one byte per element. Between ranks.
[[nodiscard]] Tensor fp8_cast(Tape& tape, const Tensor& x);

}  // namespace steelyard::step
