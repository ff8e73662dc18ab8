// How much of a processor's rate a matrix product of a given shape reaches: the library cuts the
// result into tiles, gives each to one multiprocessor and runs them in waves. Derivation and
// sources: docs/model/compute.md.
#pragma once

#include <cstdint>

#include "base/quantity.h"

namespace steelyard::pace {

// Which tiles kernels have: matrix products many, convolutions on vector units a few wide ones.
enum class TileShapes : std::uint8_t { products, convolution, winograd };

// What cutting into tiles costs on one processor.
struct TileCosts {
  double multiprocessors = 1.0;
  // Elements of a side whose loading takes as long as multiplying them with the other side: a
  // tile of a x b keeps 1 / (1 + feed (1/a + 1/b)) of the rate. The largest tile is the measure.
  double feed = 0.0;
  double start = 0.0;         // what a tile takes to begin and to end, in steps of its depth
  double quantisation = 0.0;  // 1: a wave that is partly empty costs a whole one; 0: its share
  TileShapes shapes = TileShapes::products;
  bool splits = true;  // a deep sum may be split over multiprocessors
};

// Of the rate that large matrices reach, in (0, 1]. m x n results of depth k, `batch` times.
[[nodiscard]] Ratio share_of_tiles(std::int64_t m, std::int64_t n, std::int64_t k,
                                   std::int64_t batch, const TileCosts& costs);

}  // namespace steelyard::pace
