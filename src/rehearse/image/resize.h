// Resizing with the triangle filter, widened when the image shrinks ("bilinear with antialias", as
// Pillow and torchvision resize): every output pixel is a weighted sum of the few source pixels
// under the triangle around it. Rows are summed first, then the pixels of the summed row.
//
// Pixels are four bytes (red, green, blue, one that is ignored) until the last step, which writes
// three. There is one implementation for AVX2 and a plain one; they give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace steelyard::rehearse {

// The weights of one direction. Weights are whole numbers that sum to kWhole for every output.
struct Taps {
  static constexpr int kBits = 14;
  static constexpr int kWhole = 1 << kBits;

  int outputs = 0;
  int most = 0;                       // weights per output, a multiple of 2; unused ones are 0
  std::vector<std::int32_t> first;    // source pixel of an output's first weight
  std::vector<std::int16_t> weights;  // outputs x most

  [[nodiscard]] const std::int16_t* of(int output) const {
    return weights.data() + static_cast<std::size_t>(output) * static_cast<std::size_t>(most);
  }
};

// The part [from, from + length) of a line of `size` source pixels becomes `outputs` pixels; the
// part lies inside of the line, length > 0. `mirrored`: the last output comes first. `taps` is
// overwritten; its memory is used again.
void make_taps(double from, double length, int size, int outputs, bool mirrored, Taps& taps);

// out[i] = the weighted sum of rows[k][i], rounded; i < bytes. Up to kOverrun bytes behind the end
// of a row may be read and of `out` written. `taps` is even.
constexpr std::size_t kOverrun = 64;
void blend_rows(const std::uint8_t* const* rows, const std::int16_t* weights, int taps,
                std::uint8_t* out, std::size_t bytes);
// `row` (four bytes a pixel) -> taps.outputs pixels of three bytes. Reads taps.most pixels from
// each first one, also behind the end of the row: those have no weight.
void blend_pixels(const std::uint8_t* row, const Taps& taps, std::uint8_t* out);

// The plain implementations, that the others are compared with.
void blend_rows_plain(const std::uint8_t* const* rows, const std::int16_t* weights, int taps,
                      std::uint8_t* out, std::size_t bytes);
void blend_pixels_plain(const std::uint8_t* row, const Taps& taps, std::uint8_t* out);

}  // namespace steelyard::rehearse
