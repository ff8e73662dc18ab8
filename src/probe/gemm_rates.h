// How fast a GPU multiplies matrices, by cuBLASLt, which is opened while the program runs: the
// products of square matrices of a few sizes in tf32, fp16, bf16 and fp8 (e4m3, results bf16, fast
// accumulation as in Transformer Engine's forward pass), the left operand transposed, the algorithm
// that the library would choose. Values are random: zeros draw less power and run at a higher
// clock.
#pragma once

#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/topology.h"

namespace steelyard::probe {

struct GemmOptions {
  std::string cuda{};      // empty: $STEELYARD_CUDA, else libcuda.so.1
  std::string cublaslt{};  // empty: $STEELYARD_CUBLASLT, else libcublasLt.so.13, .12, .11
  std::string nvml{};      // empty: $STEELYARD_NVML, else libnvidia-ml.so.1
  std::vector<std::int64_t> sizes = {4096, 8192};  // multiples of 16
  Seconds run = Seconds(0.03);                     // each run multiplies about that long
  int runs = 5;                                    // after one that warms up
};

// Fills `rates` of the GPUs that CUDA shows to this process with the best of the sizes, each with
// size, spread and what held the clock back. What a GPU or library does not support stays unknown;
// what fails is said in the GPU's problems. No library: nothing, and no warning unless
// $STEELYARD_CUBLASLT names one.
void measure_gemms(facts::Topology& topology, const GemmOptions& options);

}  // namespace steelyard::probe
