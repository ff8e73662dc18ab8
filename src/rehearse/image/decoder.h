// An image decoded row by row, and only the part of it that is wanted. One decoder belongs to one
// thread and is used again and again: what it holds does not grow with the number of images.
//
// What is wrong with an image is a Flaw: a sentence, for a person. After a flaw the next image can
// be opened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>

#include "rehearse/image/crop.h"

namespace steelyard::rehearse {

using Flaw = std::string;
template <class T>
using OrFlaw = std::expected<T, Flaw>;

// An image with more pixels is refused: a few bytes can claim any size (Pillow refuses at twice
// its MAX_IMAGE_PIXELS for the same reason, with nearly this number).
constexpr std::int64_t kMostPixels = 180'000'000;

struct ImageSize {
  int width = 0, height = 0;
  std::int64_t held = 0;  // bytes that decoding holds besides a few rows (all coefficients of a
                          // progressive JPEG, all pixels of an interlaced PNG)
};

// The rows that will come, in pixels of the shrunk image: they contain what was asked for.
struct PixelRegion {
  int left = 0, top = 0, width = 0, height = 0;
};

class ImageDecoder {
 public:
  virtual ~ImageDecoder() = default;

  // Reads the head. `bytes` must stay until the image is finished.
  [[nodiscard]] virtual OrFlaw<ImageSize> open(std::span<const std::uint8_t> bytes) = 0;
  // Only `box` is wanted, and the image 1/shrink as large where the decoder can do that (`shrink`
  // is 1, 2, 4 or 8; can_shrink). After open, before row.
  [[nodiscard]] virtual OrFlaw<PixelRegion> start(const Box& box, int shrink) = 0;
  // The next row: region.width pixels of four bytes.
  [[nodiscard]] virtual OrFlaw<void> row(std::uint8_t* pixels) = 0;
  // Done with this image, whether all rows were read or not.
  virtual void finish() = 0;
  [[nodiscard]] virtual bool can_shrink() const { return false; }
};

// libjpeg-turbo. The codes of most files are read by HuffmanScan (rehearse/image/huffman_scan.h),
// unless libjpeg's own reader is asked for: they give the same pixels and the same flaws.
enum class CodeReader { fast, libjpeg };
[[nodiscard]] std::unique_ptr<ImageDecoder> make_jpeg_decoder(CodeReader reader = CodeReader::fast);
[[nodiscard]] std::unique_ptr<ImageDecoder> make_png_decoder();  // libspng

[[nodiscard]] bool looks_like_png(std::span<const std::uint8_t> bytes);

}  // namespace steelyard::rehearse
