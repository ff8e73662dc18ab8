// The inner loops of the memory measurements, by the widest vectors that the processor has.
#pragma once

#include <cstddef>
#include <string>

namespace steelyard::probe {

// Numbers that one turn of every kernel takes; what is left over is not touched.
inline constexpr std::size_t kKernelStep = 64;

// On arrays that begin at a multiple of 64 bytes. Stores go past the caches where the processor
// has such stores, and are complete when a kernel returns.
struct MemoryKernels {
  const char* instructions = "";
  double (*read)(const double* from,
                 std::size_t count) = nullptr;  // the sum: read so that it counts
  void (*write)(double* to, std::size_t count, double value) = nullptr;
  void (*copy)(double* to, const double* from, std::size_t count) = nullptr;
  void (*triad)(double* to, const double* b, const double* c, double s,
                std::size_t count) = nullptr;
};

// The best for this processor.
[[nodiscard]] MemoryKernels memory_kernels();
// "avx512", "avx2" or "plain"; kernels without functions where the processor lacks them.
[[nodiscard]] MemoryKernels memory_kernels(const std::string& instructions);

}  // namespace steelyard::probe
