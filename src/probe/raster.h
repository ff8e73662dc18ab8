// Images in memory: made, encoded, decoded, resized. Three bytes per pixel, red, green, blue, rows
// without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace steelyard::probe {

struct Raster {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> pixels{};

  // Keeps the memory where it suffices.
  void shape(int new_width, int new_height);
};

// How much is new from pixel to pixel: as in a photograph out of focus, a usual and a busy one.
// JPEG of quality 90 take about 0.1, 0.25 and 0.5 bytes a pixel.
enum class Detail { soft, usual, rich };

// Costs an encoder and a decoder what a photograph does: neighboring pixels foretell each other as
// they do there, so PNG files filter by the neighbors (Paeth).
[[nodiscard]] Raster synthetic_image(int width, int height, Detail detail, std::uint32_t seed);

using Encoded = std::vector<std::uint8_t>;
// 4:2:0; quality from 1 to 100.
[[nodiscard]] Result<Encoded> encode_jpeg(const Raster& image, int quality);
[[nodiscard]] Result<Encoded> encode_png(const Raster& image);

// One per thread; keeps its state and `into` its memory from image to image.
class JpegDecoder {
 public:
  JpegDecoder();
  // Scaled to 1/parts of the size in the frequency domain; parts: 1, 2, 4, 8. Fails on what is no
  // whole JPEG file.
  [[nodiscard]] Result<void> decode(std::span<const std::uint8_t> file, int parts, Raster& into);
  // "libjpeg-turbo"; its header tells no version.
  [[nodiscard]] static std::string name() { return "libjpeg-turbo"; }

 private:
  std::unique_ptr<void, int (*)(void*)> handle_;
};

[[nodiscard]] Result<void> decode_png(std::span<const std::uint8_t> file, Raster& into);
// "libspng 0.7.3"
[[nodiscard]] std::string png_decoder_name();

// Bilinear, averaging over all source pixels where it makes smaller (as Pillow and torchvision with
// antialias do); weights are kept for the next image of the same size. One per thread.
class Resizer {
 public:
  Resizer(int width, int height) : width_(width), height_(height) {}
  void resize(const Raster& from, Raster& into);

 private:
  // For each result, where its source pixels begin, and their weights, in 1/256 and together 256.
  struct Taps {
    std::vector<int> begins;
    std::vector<std::vector<std::uint16_t>> weights;
  };
  static Taps taps_of(int from, int to);

  int width_;
  int height_;
  int from_width_ = 0;
  int from_height_ = 0;
  Taps columns_;
  Taps rows_;
  std::vector<std::uint16_t> row_;  // one row of the result at the source's width
};

}  // namespace steelyard::probe
