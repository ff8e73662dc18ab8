// From the bytes of an image file to a sample: random part, mirrored or not, resized to a square.
// Rows are decoded, summed and forgotten: besides what the decoder holds, a thread needs a few
// rows. Belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "rehearse/image/decoder.h"
#include "rehearse/image/resize.h"

namespace steelyard::rehearse {

// How a sample lies in its batch.
enum class Pixels {
  u8,   // side x side x 3 bytes: rows, pixels, channels
  f32,  // 3 x side x side floats: ImageNet's mean taken off, divided by its standard deviation
};

struct SampleShape {
  int side = 224;
  Pixels pixels = Pixels::u8;

  [[nodiscard]] std::size_t bytes() const {
    const std::size_t values = static_cast<std::size_t>(side) * static_cast<std::size_t>(side) * 3;
    return values * (pixels == Pixels::f32 ? 4 : 1);
  }
};

class SampleMaker {
 public:
  explicit SampleMaker(SampleShape shape, bool scaled_decode = true)
      : shape_(shape),
        scaled_decode_(scaled_decode),
        jpeg_(make_jpeg_decoder()),
        png_(make_png_decoder()) {}

  // Writes shape.bytes() to `sample`. `seed` decides the part and whether it is mirrored.
  [[nodiscard]] OrFlaw<void> make(std::span<const std::uint8_t> file, std::uint64_t seed,
                                  std::uint8_t* sample);
  // The same for a given part.
  [[nodiscard]] OrFlaw<void> make_from(std::span<const std::uint8_t> file, const Box& box,
                                       bool mirrored, std::uint8_t* sample);

  // Bytes held between samples, and with the largest image so far.
  [[nodiscard]] std::int64_t held() const { return held_; }

 private:
  [[nodiscard]] OrFlaw<void> render(ImageDecoder& decoder, const Box& box, bool mirrored,
                                    std::uint8_t* sample);
  void write_row(const std::uint8_t* pixels, int y, std::uint8_t* sample);

  SampleShape shape_;
  bool scaled_decode_;
  std::unique_ptr<ImageDecoder> jpeg_, png_;
  Taps across_, down_;
  std::vector<std::uint8_t> ring_, line_, out_;
  std::vector<const std::uint8_t*> rows_;
  std::int64_t held_ = 0;
};

}  // namespace steelyard::rehearse
