#include "probe/memory_kernels.h"

#include <array>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace steelyard::probe {

namespace {

// Plain C++: what the compiler makes of it for any processor.
double read_plain(const double* from, std::size_t count) {
  std::array<double, kKernelStep> sums{};
  for (std::size_t i = 0; i + kKernelStep <= count; i += kKernelStep) {
    for (std::size_t k = 0; k < kKernelStep; ++k) sums[k] += from[i + k];
  }
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

void write_plain(double* to, std::size_t count, double value) {
  for (std::size_t i = 0; i < count / kKernelStep * kKernelStep; ++i) to[i] = value;
  asm volatile("" ::: "memory");
}

void copy_plain(double* __restrict to, const double* __restrict from, std::size_t count) {
  for (std::size_t i = 0; i < count / kKernelStep * kKernelStep; ++i) to[i] = from[i];
  asm volatile("" ::: "memory");
}

void triad_plain(double* __restrict to, const double* __restrict b, const double* __restrict c,
                 double s, std::size_t count) {
  for (std::size_t i = 0; i < count / kKernelStep * kKernelStep; ++i) to[i] = b[i] + s * c[i];
  asm volatile("" ::: "memory");
}

constexpr MemoryKernels kPlain = {"plain", read_plain, write_plain, copy_plain, triad_plain};

#if defined(__x86_64__)

#define STEELYARD_AVX2 __attribute__((target("avx2,fma")))
#define STEELYARD_AVX512 __attribute__((target("avx512f")))

STEELYARD_AVX2 double read_avx2(const double* from, std::size_t count) {
  __m256d sums[8] = {};
  for (std::size_t i = 0; i + kKernelStep <= count; i += kKernelStep) {
#pragma GCC unroll 16
    for (std::size_t k = 0; k < 16; ++k)
      sums[k % 8] = _mm256_add_pd(sums[k % 8], _mm256_load_pd(from + i + 4 * k));
  }
  for (std::size_t k = 1; k < 8; ++k) sums[0] = _mm256_add_pd(sums[0], sums[k]);
  return sums[0][0] + sums[0][1] + sums[0][2] + sums[0][3];
}

STEELYARD_AVX2 void write_avx2(double* to, std::size_t count, double value) {
  const __m256d all = _mm256_set1_pd(value);
  for (std::size_t i = 0; i + kKernelStep <= count; i += kKernelStep) {
#pragma GCC unroll 16
    for (std::size_t k = 0; k < 16; ++k) _mm256_stream_pd(to + i + 4 * k, all);
  }
  _mm_sfence();
}

STEELYARD_AVX2 void copy_avx2(double* to, const double* from, std::size_t count) {
  for (std::size_t i = 0; i + kKernelStep <= count; i += kKernelStep) {
#pragma GCC unroll 16
    for (std::size_t k = 0; k < 16; ++k)
      _mm256_stream_pd(to + i + 4 * k, _mm256_load_pd(from + i + 4 * k));
  }
  _mm_sfence();
}

STEELYARD_AVX2 void triad_avx2(double* to, const double* b, const double* c, double s,
                               std::size_t count) {
  const __m256d factor = _mm256_set1_pd(s);
  for (std::size_t i = 0; i + kKernelStep <= count; i += kKernelStep) {
#pragma GCC unroll 16
    for (std::size_t k = 0; k < 16; ++k) {
      const std::size_t at = i + 4 * k;
      _mm256_stream_pd(to + at,
                       _mm256_fmadd_pd(factor, _mm256_load_pd(c + at), _mm256_load_pd(b + at)));
    }
  }
  _mm_sfence();
}

STEELYARD_AVX512 double read_avx512(const double* from, std::size_t count) {
  __m512d sums[8] = {};
  for (std::size_t i = 0; i + kKernelStep <= count; i += kKernelStep) {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < 8; ++k)
      sums[k] = _mm512_add_pd(sums[k], _mm512_load_pd(from + i + 8 * k));
  }
  for (std::size_t k = 1; k < 8; ++k) sums[0] = _mm512_add_pd(sums[0], sums[k]);
  double sum = 0;
  for (int k = 0; k < 8; ++k) sum += sums[0][k];
  return sum;
}

STEELYARD_AVX512 void write_avx512(double* to, std::size_t count, double value) {
  const __m512d all = _mm512_set1_pd(value);
  for (std::size_t i = 0; i + kKernelStep <= count; i += kKernelStep) {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < 8; ++k) _mm512_stream_pd(to + i + 8 * k, all);
  }
  _mm_sfence();
}

STEELYARD_AVX512 void copy_avx512(double* to, const double* from, std::size_t count) {
  for (std::size_t i = 0; i + kKernelStep <= count; i += kKernelStep) {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < 8; ++k)
      _mm512_stream_pd(to + i + 8 * k, _mm512_load_pd(from + i + 8 * k));
  }
  _mm_sfence();
}

STEELYARD_AVX512 void triad_avx512(double* to, const double* b, const double* c, double s,
                                   std::size_t count) {
  const __m512d factor = _mm512_set1_pd(s);
  for (std::size_t i = 0; i + kKernelStep <= count; i += kKernelStep) {
#pragma GCC unroll 8
    for (std::size_t k = 0; k < 8; ++k) {
      const std::size_t at = i + 8 * k;
      _mm512_stream_pd(to + at,
                       _mm512_fmadd_pd(factor, _mm512_load_pd(c + at), _mm512_load_pd(b + at)));
    }
  }
  _mm_sfence();
}

constexpr MemoryKernels kAvx2 = {"avx2", read_avx2, write_avx2, copy_avx2, triad_avx2};
constexpr MemoryKernels kAvx512 = {"avx512", read_avx512, write_avx512, copy_avx512, triad_avx512};

#endif

}  // namespace

MemoryKernels memory_kernels(const std::string& instructions) {
#if defined(__x86_64__)
  if (instructions == "avx512" && __builtin_cpu_supports("avx512f")) return kAvx512;
  if (instructions == "avx2" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return kAvx2;
#endif
  return instructions == "plain" ? kPlain : MemoryKernels{};
}

MemoryKernels memory_kernels() {
  for (const char* instructions : {"avx512", "avx2"}) {
    const MemoryKernels kernels = memory_kernels(instructions);
    if (kernels.read != nullptr) return kernels;
  }
  return kPlain;
}

}  // namespace steelyard::probe
