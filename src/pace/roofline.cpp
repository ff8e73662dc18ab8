#include "pace/roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "pace/tiles.h"

namespace steelyard::pace {
namespace {

using facts::EfficiencyConstants;
using facts::Gpu;
using step::Work;
using step::WorkKind;

// Tensor cores load rows in pieces of 16 bytes; a side that is no multiple of it takes slower
// kernels (NVIDIA, Deep Learning Performance Guide, "Requirements to use Tensor Cores").
constexpr std::int64_t kAlignmentBytes = 16;

// Processors before compute capability 8.0 multiply tf32 as fp32, on the vector units.
bool on_matrix_units(const Work& work, const Gpu& gpu) {
  if (work.dtype != facts::DType::fp32) return true;
  return work.tf32 && !before_ampere(gpu);
}

bool aligned(const Work& work, bool grouped = false) {
  const std::int64_t multiple = kAlignmentBytes / facts::bytes_of(work.dtype);
  if (multiple <= 1) return true;
  const bool rows = work.m % multiple == 0, depth = work.k % multiple == 0;
  // Of grouped products one of these counts tokens, whose rows are whole.
  return work.n % multiple == 0 && (grouped ? rows || depth : rows && depth);
}

double multiprocessors_of(const Gpu& gpu, const EfficiencyConstants& efficiency) {
  const auto known = efficiency.multiprocessors.find(gpu.id);
  return known == efficiency.multiprocessors.end() ? efficiency.multiprocessors_else
                                                   : known->second;
}

// What tiles and waves leave, on matrix or on vector units.
Ratio share_on(bool matrix, const Work& gemm, const Gpu& gpu,
               const EfficiencyConstants& efficiency) {
  const TileCosts costs{.multiprocessors = multiprocessors_of(gpu, efficiency),
                        .feed = matrix ? efficiency.gemm_feed : efficiency.gemm_vector_feed,
                        .start = efficiency.gemm_start,
                        .quantisation = efficiency.gemm_quantisation};
  return share_of_tiles(gemm.m, gemm.n, gemm.k, gemm.batch, costs);
}

// What the matrix units could do if the data sheet's rate were not halved: GeForce cards add up
// 16-bit products in fp32 at half of the rate of the same chip's other cards (NVIDIA Ampere GA102
// whitepaper, table 3), so that feeding the units is no limit for them.
double rate_of_units(const Gpu& gpu, const Work& work, FlopsPerSecond peak,
                     const EfficiencyConstants& efficiency) {
  if (work.dtype == facts::DType::fp8 || !gpu.compute_capability || !gpu.peak.fp32) {
    return peak.value();
  }
  const auto multiple =
      efficiency.matrix_over_vector.find(fmt::format("{:.1f}", *gpu.compute_capability));
  if (multiple == efficiency.matrix_over_vector.end()) return peak.value();
  const double full = multiple->second * gpu.peak.fp32->value();
  return std::max(peak.value(), work.dtype == facts::DType::fp32 ? full / 2.0 : full);
}

// The catalogue's best measured rate bounds what is promised of 16-bit products.
double bound_of(const Gpu& gpu, const Work& work, FlopsPerSecond peak,
                const EfficiencyConstants& efficiency) {
  const double bound = peak.value() * efficiency.gemm_peak.value();
  const bool half = work.dtype == facts::DType::bf16 || work.dtype == facts::DType::fp16;
  return half && gpu.measured_bf16 ? std::min(bound, gpu.measured_bf16->value()) : bound;
}

// Batched products of short types whose operands begin at odd places run without matrix units.
bool falls_back(const Work& work, const Gpu& gpu, bool grouped) {
  return work.batch > 1 && !grouped && on_matrix_units(work, gpu) && !aligned(work) &&
         facts::bytes_of(work.dtype) == 2 && gpu.peak.fp32.value.has_value();
}

double gemm_rate(const Work& work, const Gpu& gpu, FlopsPerSecond peak,
                 const EfficiencyConstants& efficiency, bool grouped) {
  if (falls_back(work, gpu, grouped)) {
    const double shape = share_on(false, work, gpu, efficiency).value();
    return gpu.peak.fp32->value() * efficiency.gemm_unaligned_batched.value() * shape;
  }
  const double shape =
      (grouped && aligned(work, true) ? share_on(on_matrix_units(work, gpu), work, gpu, efficiency)
                                      : shape_efficiency(work, gpu, efficiency))
          .value();
  if (!on_matrix_units(work, gpu)) return peak.value() * efficiency.gemm_vector.value() * shape;
  const double tf32 = work.dtype == facts::DType::fp32 ? efficiency.gemm_tf32.value() : 1.0;
  const double fed = rate_of_units(gpu, work, peak, efficiency) * efficiency.gemm.value() * shape;
  return tf32 * std::min(bound_of(gpu, work, peak, efficiency), fed);
}

// Short sequences give a kernel little arithmetic for what it loads.
double attention_rate(const Work& work, const Gpu& gpu, FlopsPerSecond peak,
                      const EfficiencyConstants& efficiency) {
  // Backward: five products for twice the traffic of forward's two.
  constexpr double kBackwardOverForward = 5.0 / 4.0;
  const double share =
      (work.backward ? efficiency.attention_backward : efficiency.attention_forward).value();
  double long_enough = 1.0;
  if (work.traffic > Bytes(0)) {
    const double intensity =
        work.flops.value() / work.traffic.real() / (work.backward ? kBackwardOverForward : 1.0);
    long_enough = intensity / (intensity + efficiency.attention_half_intensity);
  }
  return std::min(bound_of(gpu, work, peak, efficiency),
                  rate_of_units(gpu, work, peak, efficiency) * share * long_enough);
}

// Pointwise kernels do a few operations per byte, an order below what the vector units could do in
// the time of the traffic, so only matrix products and attention are limited by arithmetic.
bool has_arithmetic(const Work& work) {
  return (work.kind == WorkKind::gemm || work.kind == WorkKind::attention) &&
         work.flops.value() > 0.0;
}

}  // namespace

Ratio shape_efficiency(const Work& gemm, const Gpu& gpu, const EfficiencyConstants& efficiency) {
  const bool matrix = on_matrix_units(gemm, gpu);
  const Ratio share = share_on(matrix, gemm, gpu, efficiency);
  if (!matrix || aligned(gemm)) return share;
  return Ratio(share.value() * efficiency.gemm_unaligned.value());
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
  // What `steelyard probe` measured are copies: they need no share of a raw rate.
  if (gpu.host_link.from == facts::Provenance::measured) return work.traffic / *link;
  return work.traffic / scaled(*link, efficiency.host_link);
}

std::optional<WorkTime> time_of(const Work& work, const Gpu& gpu,
                                const EfficiencyConstants& efficiency, Missing& missing,
                                const Nature& nature) {
  Seconds arithmetic, memory, copies;
  bool known = true;
  if (has_arithmetic(work)) {
    if (const auto peak = peak_rate(gpu, work.dtype, work.tf32, missing)) {
      arithmetic = Seconds(work.flops.value() /
                           (work.kind == WorkKind::attention
                                ? attention_rate(work, gpu, *peak, efficiency)
                                : gemm_rate(work, gpu, *peak, efficiency, nature.grouped)));
    } else {
      known = false;
    }
  }
  if (work.traffic > Bytes(0)) {
    if (const auto bandwidth = memory_bandwidth(gpu, missing)) {
      memory = work.traffic / scaled(*bandwidth, efficiency.memory);
      // Matrix units want channels last: cuDNN reads and writes the tensors once more.
      if (nature.copies_channels && has_arithmetic(work) && on_matrix_units(work, gpu)) {
        copies = 2.0 * efficiency.convolution_layout * memory;
      }
      if (!has_arithmetic(work)) memory = memory * nature.traffic;
    } else {
      known = false;
    }
  }
  if (!known) return std::nullopt;
  return WorkTime{std::max(arithmetic, memory) + copies + efficiency.kernel_floor,
                  arithmetic > memory && arithmetic >= efficiency.kernel_floor};
}

}  // namespace steelyard::pace
