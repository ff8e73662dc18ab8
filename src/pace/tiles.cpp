#include "pace/tiles.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace steelyard::pace {
namespace {

struct Tile {
  double rows, columns;
};

// The tiles of CUTLASS's and cuBLAS's kernels (NVIDIA, Matrix Multiplication Background, "Tile
// quantization"), and smaller ones for narrow results.
constexpr std::array<Tile, 10> kTiles = {{{256, 128},
                                          {128, 128},
                                          {256, 64},
                                          {128, 64},
                                          {64, 64},
                                          {256, 32},
                                          {128, 32},
                                          {64, 32},
                                          {32, 32},
                                          {64, 16}}};
constexpr Tile kSmallest = {16, 16};
// Those of cuDNN's convolutions on vector units, as profiles name them ("scudnn_128x32_relu"). It
// has no narrower ones: groups of few channels leave the rest of a tile empty.
constexpr std::array<Tile, 3> kConvolutionTiles = {{{128, 128}, {128, 64}, {128, 32}}};
constexpr std::array<Tile, 2> kWinogradTiles = {{{128, 128}, {128, 64}}};
constexpr double kDepthOfASlice = 32.0;  // the main loop walks the depth in such steps
// Splitting the depth over several multiprocessors ("split-K") pays when there are few tiles; a
// part keeps at least this depth, and the parts are added in a second pass.
constexpr double kLeastDepthOfAPart = 128.0;
constexpr double kMostParts = 64.0;

double kept(const Tile& tile, double feed) {
  return 1.0 / (1.0 + feed * (1.0 / tile.rows + 1.0 / tile.columns));
}

// Multiply-adds that the time of one multiprocessor would do, when all work on this product.
double cost_with(const Tile& tile, double m, double n, double k, double batch,
                 const TileCosts& costs) {
  const double tiles = std::ceil(m / tile.rows) * std::ceil(n / tile.columns) * batch;
  const double speed = kept(tile, costs.feed) / kept(kTiles[0], costs.feed);
  double best = std::numeric_limits<double>::infinity();
  const double most = costs.splits ? kMostParts : 1.0;
  for (double parts = 1.0; parts <= most; parts *= 2.0) {
    const double slices = std::ceil(k / parts / kDepthOfASlice) * kDepthOfASlice;
    const double depth = parts > 1.0 ? std::max(slices, kLeastDepthOfAPart) + 2.0 * costs.start
                                     : slices + costs.start;
    const double exact = tiles * parts / costs.multiprocessors;
    const double waves = std::max(1.0, exact + costs.quantisation * (std::ceil(exact) - exact));
    best = std::min(best, waves * tile.rows * tile.columns * depth / speed);
    if (exact > 4.0) break;  // the processor is full: more parts only cost more
  }
  return best;
}

template <std::size_t Count>
double least_cost(const std::array<Tile, Count>& tiles, double m, double n, double k, double batch,
                  const TileCosts& costs) {
  double best = std::numeric_limits<double>::infinity();
  for (const Tile& tile : tiles) {
    best = std::min(best, cost_with(tile, m, n, k, batch, costs));
    if (tile.rows != tile.columns) {
      best = std::min(best, cost_with({tile.columns, tile.rows}, m, n, k, batch, costs));
    }
  }
  return best;
}

double least_cost(TileShapes shapes, double m, double n, double k, double batch,
                  const TileCosts& costs) {
  switch (shapes) {
    case TileShapes::convolution: return least_cost(kConvolutionTiles, m, n, k, batch, costs);
    case TileShapes::winograd: return least_cost(kWinogradTiles, m, n, k, batch, costs);
    case TileShapes::products: break;
  }
  return std::min(cost_with(kSmallest, m, n, k, batch, costs),
                  least_cost(kTiles, m, n, k, batch, costs));
}

}  // namespace

Ratio share_of_tiles(std::int64_t rows, std::int64_t columns, std::int64_t deep, std::int64_t times,
                     const TileCosts& costs) {
  if (rows <= 0 || columns <= 0 || deep <= 0 || times <= 0) return Ratio(1.0);
  const double m = static_cast<double>(rows), n = static_cast<double>(columns);
  const double k = static_cast<double>(deep), batch = static_cast<double>(times);
  const double best = least_cost(costs.shapes, m, n, k, batch, costs);
  return Ratio(std::min(1.0, m * n * k * batch / costs.multiprocessors / best));
}

}  // namespace steelyard::pace
