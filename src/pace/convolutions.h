// Convolutions that no matrix unit multiplies: fp32 before Ampere, or with tf32 off; and those of
// each channel for itself. Which kernels a library has for them: docs/model/compute.md.
#pragma once

#include <cstdint>

#include "base/quantity.h"
#include "facts/constants.h"
#include "step/program.h"

namespace steelyard::pace {

// Which product of a convolution: its result, the gradient of its input (of more pixels than the
// result where the window moves by more than one), or that of its weight.
enum class ConvolutionPass : std::uint8_t { none, forward, input, strided_input, weight };

struct VectorUnits {
  FlopsPerSecond peak;
  double multiprocessors = 1.0;
  BytesPerSecond streamed;  // memory, as kernels reach it
};

// `work` is the product of the windows; seconds of the fastest way to do it.
[[nodiscard]] Seconds convolved(const step::Work& work, ConvolutionPass pass,
                                const VectorUnits& units,
                                const facts::EfficiencyConstants& efficiency);

// Convolutions of each channel for itself ("depthwise"): what their threads take to begin their
// instructions. `own`: kernels of the framework, not of the library. They wait for memory besides.
[[nodiscard]] Seconds issued(const step::Work& work, ConvolutionPass pass, bool own,
                             double instructions_per_second,
                             const facts::EfficiencyConstants& efficiency);

// How often the window reads each element of what it slides over. 9: one of 3 x 3 at every pixel.
[[nodiscard]] double reads_of_input(const step::Work& work, ConvolutionPass pass);

}  // namespace steelyard::pace
