#include <algorithm>
#include <cmath>

#include "probe/raster.h"

namespace steelyard::probe {

namespace {

// One step of a counter, mixed (splitmix64): the same numbers on every machine.
class Noise {
 public:
  explicit Noise(std::uint64_t seed) : state_(seed * 0x2545f4914f6cdd1dU) {}

  // Mean 0, deviation 1, nearly normal: the sum of four.
  float next() {
    state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    z ^= z >> 31;
    const auto part = [&](int shift) { return static_cast<float>((z >> shift) & 0xffffU); };
    constexpr float kMean = 2 * 65535.0F;
    constexpr float kOneOverDeviation = 1.7320508F / 65536.0F;
    return (part(0) + part(16) + part(32) + part(48) - kMean) * kOneOverDeviation;
  }

 private:
  std::uint64_t state_;
};

constexpr std::size_t kColors = 3;
constexpr float kContrast = 45;  // standard deviation of the whole picture
// Of what is new in a pixel, the part that each color has for itself: with 0.3 JPEG and PNG files
// of the made pictures take as long per byte as those of photographs (docs/probe-measurements.md).
constexpr float kOwn = 0.3F;

// The separable first-order model of photographs (Jain, Fundamentals of Digital Image Processing,
// 1989, section 2.9): a pixel is foretold by its neighbors to the left, above and between, and
// `fresh` (a standard deviation, in levels) is what they do not foretell.
class Scene {
 public:
  Scene(int width, int height, float fresh, std::uint32_t seed)
      : width_(static_cast<std::size_t>(width)),
        fresh_(fresh),
        near_(std::sqrt(1 - fresh / kContrast)),
        noise_(seed),
        values_(width_ * static_cast<std::size_t>(height) * kColors) {
    for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
      for (std::size_t x = 0; x < width_; ++x) fill(x, y);
    }
  }

  // Of a color; coordinates inside of the scene.
  [[nodiscard]] float at(std::size_t x, std::size_t y, std::size_t color) const {
    return values_[(y * width_ + x) * kColors + color];
  }

 private:
  void fill(std::size_t x, std::size_t y) {
    // Without neighbors everything is new, beside one edge the root of it.
    const float fresh = x == 0 && y == 0   ? kContrast
                        : x == 0 || y == 0 ? std::sqrt(fresh_ * kContrast)
                                           : fresh_;
    const float common = std::sqrt(1 - kOwn) * noise_.next();
    for (std::size_t color = 0; color < kColors; ++color) {
      const float left = x > 0 ? at(x - 1, y, color) : 0;
      const float above = y > 0 ? at(x, y - 1, color) : 0;
      const float between = x > 0 && y > 0 ? at(x - 1, y - 1, color) : 0;
      values_[(y * width_ + x) * kColors + color] =
          near_ * (left + above) - near_ * near_ * between +
          fresh * (common + std::sqrt(kOwn) * noise_.next());
    }
  }

  std::size_t width_;
  float fresh_;
  float near_;  // correlation of neighbors
  Noise noise_;
  std::vector<float> values_;
};

std::uint8_t level(float value) {
  return static_cast<std::uint8_t>(std::clamp(value + 128.0F, 0.0F, 255.0F));
}

// Twice as large each way, as a picture out of focus: nothing is left of its finest detail.
Raster enlarged(const Scene& scene, int width, int height) {
  Raster image;
  image.shape(width, height);
  std::size_t at = 0;
  for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
    for (std::size_t x = 0; x < static_cast<std::size_t>(width); ++x) {
      for (std::size_t color = 0; color < kColors; ++color) {
        const std::size_t left = x / 2, above = y / 2;
        const std::size_t right = left + x % 2, below = above + y % 2;
        image.pixels[at++] = level((scene.at(left, above, color) + scene.at(right, above, color) +
                                    scene.at(left, below, color) + scene.at(right, below, color)) /
                                   4);
      }
    }
  }
  return image;
}

}  // namespace

void Raster::shape(int new_width, int new_height) {
  width = new_width;
  height = new_height;
  pixels.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
}

Raster synthetic_image(int width, int height, Detail detail, std::uint32_t seed) {
  if (detail == Detail::soft) {
    constexpr float kFresh = 0.1F;
    return enlarged(Scene(width / 2 + 2, height / 2 + 2, kFresh, seed), width, height);
  }
  const Scene scene(width, height, detail == Detail::rich ? 8 : 1, seed);
  Raster image;
  image.shape(width, height);
  std::size_t at = 0;
  for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
    for (std::size_t x = 0; x < static_cast<std::size_t>(width); ++x) {
      for (std::size_t color = 0; color < kColors; ++color) {
        image.pixels[at++] = level(scene.at(x, y, color));
      }
    }
  }
  return image;
}

}  // namespace steelyard::probe
