#include "pace/convolutions.h"

#include <algorithm>

#include "pace/tiles.h"

namespace steelyard::pace {
namespace {

using facts::EfficiencyConstants;
using step::Work;

constexpr double kWindow = 9.0;  // 3 x 3

double elements_of(const Work& work) {
  return work.traffic.real() / static_cast<double>(facts::bytes_of(work.dtype));
}

// The two sides that count pixels and windows make what slides; the third counts channels alone.
struct Sides {
  double unfolded = 0.0, others = 0.0;
};

Sides sides_of(const Work& work, ConvolutionPass pass) {
  const double groups = static_cast<double>(work.batch), m = static_cast<double>(work.m),
               n = static_cast<double>(work.n), k = static_cast<double>(work.k);
  if (pass == ConvolutionPass::weight) return {groups * n * k, groups * (m * k + m * n)};
  return {groups * m * k, groups * (m * n + n * k)};
}

bool fits_winograd(const Work& work, ConvolutionPass pass) {
  constexpr double kEdges = 0.5;  // without padding there are fewer pixels
  if (pass == ConvolutionPass::none || pass == ConvolutionPass::strided_input) return false;
  const double reads = reads_of_input(work, pass);
  return reads > kWindow - kEdges && reads < kWindow + kEdges;
}

TileCosts costs_of(TileShapes shapes, const VectorUnits& units,
                   const EfficiencyConstants& efficiency) {
  return {.multiprocessors = units.multiprocessors,
          .feed = efficiency.gemm_vector_feed,
          .start = efficiency.gemm_start,
          .quantisation = efficiency.gemm_quantisation,
          .shapes = shapes};
}

// The windows' product itself, tile by tile.
Seconds directly(const Work& work, ConvolutionPass pass, TileShapes shapes,
                 const VectorUnits& units, const EfficiencyConstants& efficiency) {
  TileCosts costs = costs_of(shapes, units, efficiency);
  costs.splits = pass == ConvolutionPass::weight;  // the sum over all pixels
  if (costs.splits) costs.start = efficiency.convolution_weights_start;
  double share = efficiency.gemm_vector.value() *
                 share_of_tiles(work.m, work.n, work.k, work.batch, costs).value();
  if (pass == ConvolutionPass::weight) share *= efficiency.convolution_weights.value();
  if (pass == ConvolutionPass::strided_input) share *= efficiency.convolution_strided.value();
  return Seconds(work.flops.value() / (units.peak.value() * share));
}

// Winograd's F(4 x 4, 3 x 3), whose parts are kernels of their own: tiles of 6 x 6 for each 4 x 4
// pixels are written and read again (2.25 times the tensors), so are 36 weights for each 9, and
// between them lie 36 products of a quarter of the arithmetic in all.
Seconds by_large_tiles(const Work& work, ConvolutionPass pass, const VectorUnits& units,
                       const EfficiencyConstants& efficiency) {
  constexpr std::int64_t kPixels = 16, kProducts = 36;
  constexpr double kExpanded = 2.25, kWeights = 36.0 / kWindow;
  const bool weights = pass == ConvolutionPass::weight;
  const auto windows = static_cast<std::int64_t>(kWindow);
  const std::int64_t tiles = std::max<std::int64_t>(1, (weights ? work.k : work.m) / kPixels);
  const std::int64_t channels = std::max<std::int64_t>(1, (weights ? work.n : work.k) / windows);
  const std::int64_t m = weights ? work.m : tiles;
  const std::int64_t n = weights ? channels : work.n;
  const std::int64_t k = weights ? tiles : channels;
  const std::int64_t products = kProducts * work.batch;
  const double flops = 2.0 * static_cast<double>(products) * static_cast<double>(m) *
                       static_cast<double>(n) * static_cast<double>(k);
  const TileCosts costs = costs_of(TileShapes::products, units, efficiency);
  const double share =
      efficiency.gemm_vector.value() * share_of_tiles(m, n, k, products, costs).value();
  const double weight = static_cast<double>(work.batch) * static_cast<double>(work.n) *
                        static_cast<double>(weights ? work.m : work.k);
  const double tensors = elements_of(work) - weight;
  const double elements = tensors * (1.0 + 2.0 * kExpanded) + weight * (1.0 + 2.0 * kWeights);
  const double bytes = elements * static_cast<double>(facts::bytes_of(work.dtype));
  return Seconds(flops / (units.peak.value() * share) + bytes / units.streamed.value());
}

}  // namespace

double reads_of_input(const Work& work, ConvolutionPass pass) {
  const Sides sides = sides_of(work, pass);
  const double input = elements_of(work) - sides.others;
  return input > 0.0 ? sides.unfolded / input : 0.0;
}

Seconds issued(const Work& work, ConvolutionPass pass, bool own, double instructions_per_second,
               const EfficiencyConstants& efficiency) {
  const bool weight = pass == ConvolutionPass::weight;
  const double products = work.flops.value() / 2.0;
  if (own) {
    const double each = weight ? efficiency.depthwise_weight_product : efficiency.depthwise_product;
    return Seconds(products * each / instructions_per_second);
  }
  const double window = static_cast<double>(weight ? work.n : work.k);
  const double each =
      efficiency.depthwise_library_product + efficiency.depthwise_library_result / window;
  return Seconds(products * each / instructions_per_second);
}

Seconds convolved(const Work& work, ConvolutionPass pass, const VectorUnits& units,
                  const EfficiencyConstants& efficiency) {
  const Seconds direct = directly(work, pass, TileShapes::convolution, units, efficiency);
  if (!fits_winograd(work, pass)) return direct;
  const Seconds large = by_large_tiles(work, pass, units, efficiency);
  // F(2 x 2, 3 x 3) is one kernel; there is none for the gradients of weights.
  if (pass == ConvolutionPass::weight) return std::min(direct, large);
  const Seconds small = directly(work, pass, TileShapes::winograd, units, efficiency);
  return std::min({direct, large, small * (1.0 / efficiency.winograd)});
}

}  // namespace steelyard::pace
