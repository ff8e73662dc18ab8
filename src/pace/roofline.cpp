#include "pace/roofline.h"

#include <algorithm>
#include <cstdint>

namespace steelyard::pace {
namespace {

using facts::EfficiencyConstants;
using facts::Gpu;
using step::Work;
using step::WorkKind;

// Tensor cores load rows in pieces of 16 bytes; a side that is no multiple of it takes slower
// kernels (NVIDIA, Deep Learning Performance Guide, "Requirements to use Tensor Cores").
constexpr std::int64_t kAlignmentBytes = 16;

bool on_tensor_cores(const Work& work) {
  return work.dtype != facts::DType::fp32 || work.tf32;
}

bool aligned(const Work& work) {
  if (!on_tensor_cores(work)) return true;
  const std::int64_t multiple = kAlignmentBytes / facts::bytes_of(work.dtype);
  return multiple <= 1 ||
         (work.m % multiple == 0 && work.n % multiple == 0 && work.k % multiple == 0);
}

// x / (x + half): the saturation that a fixed cost beside a proportional one gives.
double saturation(double x, double half) {
  return x <= 0.0 ? 1.0 : x / (x + half);
}

// The catalogue's best measured rate bounds what the general efficiency promises.
double gemm_efficiency(const Gpu& gpu, const EfficiencyConstants& efficiency) {
  const double general = efficiency.gemm.value();
  if (!gpu.measured_bf16 || !gpu.peak.bf16 || gpu.peak.bf16->value() <= 0.0) return general;
  return std::min(general, (*gpu.measured_bf16 / *gpu.peak.bf16).value());
}

Ratio arithmetic_efficiency(const Work& work, const Gpu& gpu,
                            const EfficiencyConstants& efficiency) {
  if (work.kind == WorkKind::attention) {
    return work.backward ? efficiency.attention_backward : efficiency.attention_forward;
  }
  return Ratio(gemm_efficiency(gpu, efficiency) * shape_efficiency(work, efficiency).value());
}

// Pointwise kernels do a few operations per byte, an order below what the vector units could do in
// the time of the traffic, so only matrix products and attention are limited by arithmetic.
bool has_arithmetic(const Work& work) {
  return (work.kind == WorkKind::gemm || work.kind == WorkKind::attention) &&
         work.flops.value() > 0.0;
}

}  // namespace

Ratio shape_efficiency(const Work& gemm, const EfficiencyConstants& efficiency) {
  const double half_side = efficiency.gemm_half_rows.real();
  const double results =
      static_cast<double>(gemm.m) * static_cast<double>(gemm.n) * static_cast<double>(gemm.batch);
  // Edges of tiles and too few tiles are losses of the same kind: the larger one counts.
  const double tiles = saturation(static_cast<double>(gemm.m), half_side) *
                       saturation(static_cast<double>(gemm.n), half_side);
  const double filled = saturation(results, static_cast<double>(efficiency.gemm_half_elements));
  double share = std::min(tiles, filled) * saturation(static_cast<double>(gemm.k), half_side);
  if (!aligned(gemm)) share *= efficiency.gemm_unaligned.value();
  return Ratio(share);
}

bool on_the_host(WorkKind kind) {
  return kind == WorkKind::transfer || kind == WorkKind::host;
}

std::optional<Seconds> host_time_of(const Work& work, const Gpu& gpu,
                                    const EfficiencyConstants& efficiency,
                                    BytesPerSecond host_memory_of_rank, Missing& missing) {
  if (work.kind == WorkKind::host) {
    return work.traffic / scaled(host_memory_of_rank, efficiency.memory);
  }
  const auto link = host_link(gpu, missing);
  if (!link) return std::nullopt;
  return work.traffic / scaled(*link, efficiency.host_link);
}

std::optional<WorkTime> time_of(const Work& work, const Gpu& gpu,
                                const EfficiencyConstants& efficiency, Missing& missing) {
  Seconds arithmetic, memory;
  bool known = true;
  if (has_arithmetic(work)) {
    if (const auto peak = peak_rate(gpu, work.dtype, work.tf32, missing)) {
      arithmetic = work.flops / scaled(*peak, arithmetic_efficiency(work, gpu, efficiency));
    } else {
      known = false;
    }
  }
  if (work.traffic > Bytes(0)) {
    if (const auto bandwidth = memory_bandwidth(gpu, missing)) {
      memory = work.traffic / scaled(*bandwidth, efficiency.memory);
    } else {
      known = false;
    }
  }
  if (!known) return std::nullopt;
  return WorkTime{std::max(arithmetic, memory) + efficiency.kernel_floor,
                  arithmetic > memory && arithmetic >= efficiency.kernel_floor};
}

}  // namespace steelyard::pace
