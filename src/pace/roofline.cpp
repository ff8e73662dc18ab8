#include "pace/roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

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

bool aligned(const Work& work, const Nature& nature = {}) {
  const std::int64_t multiple = kAlignmentBytes / facts::bytes_of(work.dtype);
  if (multiple <= 1) return true;
  // How many tokens there are is how many rows are loaded, not how long one is.
  const bool rows = nature.tokens == TokenSide::rows || work.m % multiple == 0;
  const bool depth = nature.tokens == TokenSide::depth || work.k % multiple == 0;
  // Of grouped products one of these counts tokens, whose rows are whole.
  return work.n % multiple == 0 && (nature.grouped ? rows || depth : rows && depth);
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
double full_rate_of_units(const Gpu& gpu, const Work& work, FlopsPerSecond peak,
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

// Under its power limit a card holds other clocks than its sheet's: what the best product was
// measured to reach, over what it reaches on a usual card, holds for every type.
double rate_of_units(const Gpu& gpu, const Work& work, FlopsPerSecond peak,
                     const EfficiencyConstants& efficiency) {
  const double full = full_rate_of_units(gpu, work, peak, efficiency);
  const double usual = efficiency.best_product.value();
  // Units without bf16 were measured in fp16.
  const auto& sheet = gpu.peak.bf16 ? gpu.peak.bf16 : gpu.peak.fp16;
  if (gpu.measured_bf16 && sheet) {
    return full * gpu.measured_bf16->value() / sheet->value() / usual;
  }
  const auto fitted = efficiency.best_product_of.find(gpu.id);
  return fitted == efficiency.best_product_of.end() ? full : full * fitted->second / usual;
}

// The catalogue's best measured rate bounds what is promised of 16-bit products.
double bound_of(const Gpu& gpu, const Work& work, FlopsPerSecond peak,
                const EfficiencyConstants& efficiency) {
  const double bound = peak.value() * efficiency.gemm_peak.value();
  const bool half = work.dtype == facts::DType::bf16 || work.dtype == facts::DType::fp16;
  return half && gpu.measured_bf16 ? std::min(bound, gpu.measured_bf16->value()) : bound;
}

// Batched products of short types whose operands begin at odd places run without matrix units;
// with cuBLAS before 11 all such products do (NVIDIA, Matrix Multiplication Background, table 1).
bool falls_back(const Work& work, const Gpu& gpu, const Nature& nature) {
  return (work.batch > 1 || nature.vector_unaligned) && !nature.grouped && !nature.convolution &&
         on_matrix_units(work, gpu) && !aligned(work, nature) && facts::bytes_of(work.dtype) == 2 &&
         gpu.peak.fp32.value.has_value();
}

// Operands whose rows begin at odd places are loaded element by element, so that a multiprocessor
// gets so many products per cycle, whatever its matrix units could do and whatever the type.
double unaligned_bound(const Gpu& gpu, const EfficiencyConstants& efficiency) {
  if (!gpu.compute_capability || !gpu.peak.fp32) return std::numeric_limits<double>::infinity();
  constexpr double kLanes = 64.0;
  return gpu.peak.fp32->value() * kLanes / vector_lanes(*gpu.compute_capability) *
         efficiency.gemm_unaligned.value();
}

// A convolution in groups for which cuDNN has no kernel of its own; see grouped_convolution.
bool lacks_kernel(const Work& work, const Gpu& gpu, const Nature& nature) {
  constexpr std::int64_t kGroups = 32;
  return nature.channels_last && work.batch > 1 && work.batch % kGroups != 0 &&
         on_matrix_units(work, gpu) && facts::bytes_of(work.dtype) == 2;
}

double fallback_rate(const Work& work, FlopsPerSecond peak, const EfficiencyConstants& efficiency) {
  constexpr double kChannels = 64.0;
  const double width = static_cast<double>(std::min({work.m, work.n, work.k}));
  return peak.value() * efficiency.grouped_convolution.value() * std::max(1.0, width / kChannels);
}

double gemm_rate(const Work& work, const Gpu& gpu, FlopsPerSecond peak,
                 const EfficiencyConstants& efficiency, const Nature& nature) {
  if (falls_back(work, gpu, nature)) {
    const double shape = share_on(false, work, gpu, efficiency).value();
    return gpu.peak.fp32->value() * efficiency.gemm_unaligned_batched.value() * shape;
  }
  if (lacks_kernel(work, gpu, nature)) return fallback_rate(work, peak, efficiency);
  const double shape = shape_efficiency(work, gpu, efficiency).value();
  if (!on_matrix_units(work, gpu)) {
    return peak.value() * efficiency.gemm_vector.value() * shape;
  }
  const double tf32 = work.dtype == facts::DType::fp32 ? efficiency.gemm_tf32.value() : 1.0;
  const double fed = rate_of_units(gpu, work, peak, efficiency) * efficiency.gemm.value() * shape;
  const double rate = tf32 * std::min(bound_of(gpu, work, peak, efficiency), fed);
  // cuDNN pads channels by itself.
  if (nature.convolution || aligned(work, nature)) return rate;
  return std::min(rate, unaligned_bound(gpu, efficiency) * shape);
}

// EfficiencyConstants::attention_of by kernel, not by framework.
constexpr std::string_view kEfficient = "efficient", kWide = "fp32", kVector = "fp32_vector",
                           kWideHeads = "efficient_wide", kSmallTiles = "efficient_small",
                           kShort = "mxfp8";

double rate_of_kernel(std::string_view name, const Work& work,
                      const EfficiencyConstants& efficiency) {
  const auto kernel = efficiency.attention_of.find(name);
  if (kernel == efficiency.attention_of.end()) return 1.0;
  return (work.backward ? kernel->second.backward : kernel->second.forward).value();
}

// 8.6, 8.9 and 12.0 let a block have 99 KB of shared memory, 8.0 and 9.0 163 and 227 KB (CUDA C++
// Programming Guide, "Compute Capabilities"): kernels with large tiles do not run there.
bool has_little_shared_memory(const Gpu& gpu) {
  const double capability = gpu.compute_capability.value_or(0.0);
  return (capability > 8.05 && capability < 8.95) || capability >= 12.0;
}

constexpr std::int64_t kNarrowHead = 64, kWidestHead = 128;

// The memory-efficient kernel is compiled for heads of up to 64 and 128 elements, narrower ones
// fill the rest with zeros; for wider ones its sums lie in memory (PyTorch,
// mem_eff_attention/kernels/generate_kernels.py and kernel_forward.h, kSingleValueIteration).
// The constants of fp32 are those of wide heads as they are.
double share_of_head(const Work& work, const EfficiencyConstants& efficiency) {
  if (work.k <= 0) return 1.0;
  if (work.k > kWidestHead) {
    return work.dtype == facts::DType::fp32 ? 1.0 : rate_of_kernel(kWideHeads, work, efficiency);
  }
  const auto compiled = work.k <= kNarrowHead ? kNarrowHead : kWidestHead;
  return static_cast<double>(work.k) / static_cast<double>(compiled);
}

double share_of_efficient(const Work& work, const Gpu& gpu, const EfficiencyConstants& efficiency) {
  const double share = rate_of_kernel(kEfficient, work, efficiency);
  const bool small = has_little_shared_memory(gpu) && work.k <= kWidestHead;
  return small ? share * rate_of_kernel(kSmallTiles, work, efficiency) : share;
}

// The constants are those of heads of 128 where a multiprocessor takes 16 exponentials per cycle:
// one for each score, beside two products of its head forward and five backward, which hardly
// overlap (docs/model/compute.md). What another head or another chip takes for the same arithmetic:
double share_of_exponentials(const Work& work, const Gpu& gpu, double rate) {
  if (work.k <= 0 || !gpu.compute_capability || !gpu.peak.fp32) return 1.0;
  constexpr double kHead = 128.0;
  const double products = work.backward ? 10.0 : 4.0;  // of a score, for each of a head's elements
  const double lanes = 2.0 * vector_lanes(*gpu.compute_capability);
  const double one = lanes / (gpu.peak.fp32->value() * kExponentials);
  const double own = one * kExponentials / exponentials(*gpu.compute_capability);
  const double usual = kHead * products / rate;
  const double heads = static_cast<double>(work.k) / kHead;
  const double multiplied = heads * std::max(0.0, usual - one);
  return usual * heads / (multiplied + own);
}

// fp32: three products of tf32 each, by instructions of Ampere as FlashAttention-2's (PyTorch,
// mem_eff_attention/gemm_kernel_utils.h); before Ampere one of the vector units.
double rate_of_wide(const Work& work, const Gpu& gpu, FlopsPerSecond peak,
                    const EfficiencyConstants& efficiency, double share) {
  const double heads = share_of_head(work, efficiency);
  if (before_ampere(gpu)) return peak.value() * rate_of_kernel(kVector, work, efficiency) * heads;
  const double units = gpu.peak.tf32.value.value_or(peak).value();
  return units * share * rate_of_kernel(kWide, work, efficiency) * heads;
}

// What long sequences reach, and what FlashAttention-2 does there in 16 bits.
struct AttentionSpeed {
  double rate, flash;
};

AttentionSpeed speed_of(const Work& work, const Gpu& gpu, FlopsPerSecond peak,
                        const EfficiencyConstants& efficiency, const Nature& nature) {
  double share =
      (work.backward ? efficiency.attention_backward : efficiency.attention_forward).value();
  if (work.dtype == facts::DType::fp32) {
    const auto& half = gpu.peak.bf16 ? gpu.peak.bf16 : gpu.peak.fp16;
    return {rate_of_wide(work, gpu, peak, efficiency, share),
            half.value.value_or(peak).value() * share};
  }
  const double units = rate_of_units(gpu, work, peak, efficiency);
  if (work.dtype == facts::DType::fp8) share = rate_of_kernel(kShort, work, efficiency);
  // Before Ampere there is no other fused kernel, and the constants are its own.
  if (nature.efficient) {
    const double heads = share_of_head(work, efficiency);
    if (before_ampere(gpu)) return {units * share * heads, units * share};
    return {units * share * heads * share_of_efficient(work, gpu, efficiency), units * share};
  }
  if (!before_ampere(gpu)) share *= share_of_exponentials(work, gpu, units * share);
  return {units * share, units * share};
}

// Short sequences give a kernel little arithmetic for what it loads, which takes as long however
// slowly it multiplies.
double attention_rate(const Work& work, const Gpu& gpu, FlopsPerSecond peak,
                      const EfficiencyConstants& efficiency, const Nature& nature) {
  // Backward: five products for twice the traffic of forward's two.
  constexpr double kBackwardOverForward = 5.0 / 4.0;
  const AttentionSpeed speed = speed_of(work, gpu, peak, efficiency, nature);
  double rate = speed.rate;
  if (work.traffic > Bytes(0)) {
    const double intensity =
        work.flops.value() / work.traffic.real() / (work.backward ? kBackwardOverForward : 1.0);
    const double half = efficiency.attention_half_intensity * speed.rate / speed.flash;
    rate *= intensity / (intensity + half);
  }
  if (work.dtype == facts::DType::fp32) return rate;
  return std::min(bound_of(gpu, work, peak, efficiency), rate);
}

// Pointwise kernels do a few operations per byte, an order below what the vector units could do in
// the time of the traffic, so only matrix products and attention are limited by arithmetic.
bool has_arithmetic(const Work& work) {
  return (work.kind == WorkKind::gemm || work.kind == WorkKind::attention) &&
         work.flops.value() > 0.0;
}

// Kernels that begin one after the other: those of grouped products run on four streams
// (Transformer Engine, common/util/multi_stream.cpp), casts on one (csrc/extensions/cast.cpp,
// multi_tensor_quantize_impl).
double starts_of(const Work& work, const Nature& nature, double launches) {
  constexpr double kStreams = 4.0;
  if (nature.in_graph) return 1.0;
  if (nature.each_group && work.kind == WorkKind::gemm && work.batch > 1) {
    return std::max(1.0, launches / kStreams);
  }
  return launches;
}

}  // namespace

double launches_of(const Work& work, const Nature& nature) {
  if (nature.in_graph) return 0.0;
  if (nature.each_group && work.batch > 1) return static_cast<double>(work.batch);
  if (nature.kernels <= 0.0) return 1.0;
  if (!nature.together) return nature.kernels;
  constexpr double kTensors = 48.0, kBytes = 320.0 * 65536.0 * 4.0;
  const double bytes = work.traffic.real() / nature.passes;
  return nature.kernels * std::max(1.0 / kTensors, bytes / kBytes);
}

namespace {

double loads_in_flight(const Gpu& gpu, const EfficiencyConstants& efficiency) {
  const double most = efficiency.loads_in_flight.real();
  if (!gpu.compute_capability) return most;
  const auto share =
      efficiency.loads_in_flight_of.find(fmt::format("{:.1f}", *gpu.compute_capability));
  return share == efficiency.loads_in_flight_of.end() ? most : most * share->second;
}

}  // namespace

Ratio streamed_share(const Gpu& gpu, BytesPerSecond bandwidth,
                     const EfficiencyConstants& efficiency, double load) {
  if (!(efficiency.memory_latency > Seconds())) return efficiency.memory;
  const double of_one = loads_in_flight(gpu, efficiency) * load / efficiency.memory_latency.value();
  const double wanted = bandwidth.value() / multiprocessors_of(gpu, efficiency);
  const double sharpness = efficiency.loads_sharpness;
  return Ratio(efficiency.memory.value() /
               std::pow(1.0 + std::pow(wanted / of_one, sharpness), 1.0 / sharpness));
}

Ratio shape_efficiency(const Work& gemm, const Gpu& gpu, const EfficiencyConstants& efficiency) {
  const bool matrix = on_matrix_units(gemm, gpu);
  return share_on(matrix, gemm, gpu, efficiency);
}

bool of_drive(WorkKind kind) {
  return kind == WorkKind::drive_read || kind == WorkKind::drive_write;
}

bool on_the_host(WorkKind kind) {
  return kind == WorkKind::transfer || kind == WorkKind::fetch || kind == WorkKind::host ||
         of_drive(kind);
}

namespace {

// The slower of what is multiplied and what is moved.
std::optional<Seconds> on_processors(const Work& work, const EfficiencyConstants& efficiency,
                                     const HostShare& host, Missing& missing) {
  const Seconds moving = work.traffic / scaled(host.memory, efficiency.memory);
  if (!(work.flops > Flops())) {
    if (!(host.stepping > BytesPerSecond())) return moving;
    return std::max(moving, work.traffic / scaled(host.stepping, efficiency.memory));
  }
  const auto& rate = work.dtype == facts::DType::fp32 ? host.wide : host.half;
  if (!rate) {
    missing.add("what the host's processors multiply (machine.cores or machine.host_tflops)");
    return std::nullopt;
  }
  return std::max(moving, work.flops / *rate);
}

}  // namespace

std::optional<Seconds> host_time_of(const Work& work, const Gpu& gpu,
                                    const EfficiencyConstants& efficiency, const HostShare& host,
                                    Missing& missing) {
  if (work.kind == WorkKind::host) return on_processors(work, efficiency, host, missing);
  // What drives are said or measured to do are bytes that programs got.
  if (work.kind == WorkKind::drive_read) return work.traffic / host.drive_read;
  if (work.kind == WorkKind::drive_write) return work.traffic / host.drive_write;
  const auto link = host_link(gpu, missing);
  if (!link) return std::nullopt;
  // What `steelyard probe` measured are copies: they need no share of a raw rate.
  if (gpu.host_link.from == facts::Provenance::measured) return work.traffic / *link;
  return work.traffic / scaled(*link, efficiency.host_link);
}

namespace {

// A convolution of vector units has ways of its own; all other work has one rate.
Seconds arithmetic_of(const Work& work, const Gpu& gpu, FlopsPerSecond peak,
                      const EfficiencyConstants& efficiency, const Nature& nature) {
  if (work.kind == WorkKind::attention) {
    return work.flops / FlopsPerSecond(attention_rate(work, gpu, peak, efficiency, nature));
  }
  const bool convolves = nature.pass != ConvolutionPass::none && !on_matrix_units(work, gpu);
  if (convolves && gpu.memory_bandwidth) {
    const VectorUnits units{
        .peak = peak,
        .multiprocessors = multiprocessors_of(gpu, efficiency),
        .streamed =
            scaled(*gpu.memory_bandwidth, streamed_share(gpu, *gpu.memory_bandwidth, efficiency))};
    return convolved(work, nature.pass, units, efficiency);
  }
  return work.flops / FlopsPerSecond(gemm_rate(work, gpu, peak, efficiency, nature));
}

// A multiprocessor begins four instructions of 32 threads per cycle, whatever its lanes.
Seconds depthwise_of(const Work& work, const Gpu& gpu, const EfficiencyConstants& efficiency,
                     const Nature& nature) {
  if (!gpu.compute_capability || !gpu.peak.fp32) return {};
  constexpr double kIssued = 128.0;
  const double begun =
      gpu.peak.fp32->value() / 2.0 * kIssued / vector_lanes(*gpu.compute_capability);
  return issued(work, nature.pass, nature.own_depthwise, begun, efficiency);
}

}  // namespace

std::optional<WorkTime> time_of(const Work& work, const Gpu& gpu,
                                const EfficiencyConstants& efficiency, Missing& missing,
                                const Nature& nature) {
  Seconds arithmetic, memory, copies;
  bool known = true;
  const bool multiplies = has_arithmetic(work) && !nature.depthwise;
  if (nature.depthwise) arithmetic = depthwise_of(work, gpu, efficiency, nature);
  if (multiplies) {
    if (const auto peak = peak_rate(gpu, work.dtype, work.tf32, missing)) {
      arithmetic = arithmetic_of(work, gpu, *peak, efficiency, nature);
      if (nature.slow_products) arithmetic = arithmetic * nature.traffic;
    } else {
      known = false;
    }
  }
  if (work.traffic > Bytes(0)) {
    if (const auto bandwidth = memory_bandwidth(gpu, missing)) {
      const double load = multiplies ? 1.0 : nature.load;
      memory = work.traffic / scaled(*bandwidth, streamed_share(gpu, *bandwidth, efficiency, load));
      // Matrix units want channels last: cuDNN reads and writes the tensors once more.
      if (nature.copies_channels && multiplies && on_matrix_units(work, gpu)) {
        copies = 2.0 * efficiency.convolution_layout * memory;
      }
      if (!multiplies || nature.slow_products) memory = memory * nature.traffic;
    } else {
      known = false;
    }
  }
  if (!known) return std::nullopt;
  const double launches = launches_of(work, nature);
  return WorkTime{std::max(arithmetic, memory) + copies +
                      efficiency.kernel_floor * starts_of(work, nature, launches),
                  arithmetic > memory && arithmetic >= efficiency.kernel_floor,
                  launches,
                  nature.in_graph ? Seconds() : nature.call,
                  nature.read_by_host,
                  nature.shared_expert};
}

}  // namespace steelyard::pace
