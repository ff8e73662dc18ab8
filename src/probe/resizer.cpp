#include <algorithm>
#include <cmath>

#include "probe/raster.h"

namespace steelyard::probe {

namespace {

constexpr int kWeightBits = 8;  // 255 * 256 and the half that rounds fit into 16 bits
constexpr int kWhole = 1 << kWeightBits;
constexpr std::uint16_t kHalf = kWhole / 2;

// sum += row * weight, for a whole row: what vectors are made for.
[[gnu::always_inline]] inline void add_row(std::uint16_t* __restrict sum,
                                           const std::uint8_t* __restrict row, std::uint16_t weight,
                                           std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    sum[i] = static_cast<std::uint16_t>(sum[i] + row[i] * weight);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void add_row_avx2(std::uint16_t* sum, const std::uint8_t* row,
                                                  std::uint16_t weight, std::size_t count) {
  add_row(sum, row, weight, count);
}
#endif

void add_row_plain(std::uint16_t* sum, const std::uint8_t* row, std::uint16_t weight,
                   std::size_t count) {
  add_row(sum, row, weight, count);
}

using AddRow = void (*)(std::uint16_t*, const std::uint8_t*, std::uint16_t, std::size_t);

AddRow best_add_row() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return add_row_avx2;
#endif
  return add_row_plain;
}

}  // namespace

// Weights of a triangle as wide as the source pixels that fall on one result, at least two.
Resizer::Taps Resizer::taps_of(int from, int to) {
  Taps taps;
  const double scale = static_cast<double>(from) / to;
  const double reach = std::max(1.0, scale);
  for (int i = 0; i < to; ++i) {
    const double center = (i + 0.5) * scale;
    const int begin = std::clamp(static_cast<int>(center - reach + 0.5), 0, from - 1);
    const int end = std::clamp(static_cast<int>(center + reach + 0.5), begin + 1, from);
    std::vector<double> shares;
    double total = 0;
    for (int at = begin; at < end; ++at) {
      shares.push_back(std::max(0.0, 1.0 - std::abs((at + 0.5 - center) / reach)));
      total += shares.back();
    }
    std::vector<std::uint16_t> weights;
    int left = kWhole;
    for (const double share : shares) {
      weights.push_back(
          static_cast<std::uint16_t>(std::min<long>(left, std::lround(share / total * kWhole))));
      left -= weights.back();
    }
    // What rounding left goes to the middle, so that a plain area keeps its color.
    weights[weights.size() / 2] = static_cast<std::uint16_t>(weights[weights.size() / 2] + left);
    taps.begins.push_back(begin);
    taps.weights.push_back(std::move(weights));
  }
  return taps;
}

void Resizer::resize(const Raster& from, Raster& into) {
  static const AddRow add = best_add_row();
  if (from.width != from_width_ || from.height != from_height_) {
    columns_ = taps_of(from.width, width_);
    rows_ = taps_of(from.height, height_);
    from_width_ = from.width;
    from_height_ = from.height;
  }
  into.shape(width_, height_);
  const std::size_t across = static_cast<std::size_t>(from.width) * 3;
  row_.resize(across);
  std::uint8_t* out = into.pixels.data();
  for (std::size_t y = 0; y < rows_.begins.size(); ++y) {
    std::fill(row_.begin(), row_.end(), kHalf);
    const std::uint8_t* source =
        from.pixels.data() + static_cast<std::size_t>(rows_.begins[y]) * across;
    for (const std::uint16_t weight : rows_.weights[y]) {
      add(row_.data(), source, weight, across);
      source += across;
    }
    for (std::size_t x = 0; x < columns_.begins.size(); ++x, out += 3) {
      const std::uint16_t* at = &row_[static_cast<std::size_t>(columns_.begins[x]) * 3];
      std::uint32_t sums[3] = {kHalf, kHalf, kHalf};
      for (const std::uint16_t weight : columns_.weights[x]) {
        for (int part = 0; part < 3; ++part)
          sums[part] += static_cast<std::uint32_t>(at[part] >> kWeightBits) * weight;
        at += 3;
      }
      for (int part = 0; part < 3; ++part)
        out[part] = static_cast<std::uint8_t>(sums[part] >> kWeightBits);
    }
  }
}

}  // namespace steelyard::probe
