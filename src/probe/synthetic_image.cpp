#include <algorithm>
#include <cmath>
#include <random>

#include "probe/raster.h"

namespace steelyard::probe {

namespace {

// Noise that is smooth between the points of a grid of `cell` pixels.
class Octave {
 public:
  Octave(int width, int height, int cell, std::mt19937& random) : cell_(cell) {
    across_ = width / cell + 2;
    values_.resize(static_cast<std::size_t>(across_) * static_cast<std::size_t>(height / cell + 2));
    for (float& value : values_) value = static_cast<float>(random() & 0xffffU) / 32768.0F - 1.0F;
  }

  [[nodiscard]] float at(int x, int y) const {
    const int column = x / cell_;
    const int row = y / cell_;
    const float right = static_cast<float>(x % cell_) / static_cast<float>(cell_);
    const float down = static_cast<float>(y % cell_) / static_cast<float>(cell_);
    const float* const upper = &values_[static_cast<std::size_t>(row * across_ + column)];
    const float* const lower = upper + across_;
    const float top = upper[0] + (upper[1] - upper[0]) * right;
    const float bottom = lower[0] + (lower[1] - lower[0]) * right;
    return top + (bottom - top) * down;
  }

 private:
  int cell_;
  int across_ = 0;
  std::vector<float> values_;
};

struct Shape {
  int left, top, right, bottom;
  float color[3];
};

std::vector<Shape> shapes(int width, int height, std::mt19937& random) {
  std::vector<Shape> all;
  for (int i = 0; i < 24; ++i) {
    const auto up_to = [&](int most) {
      return static_cast<int>(random() % static_cast<unsigned>(most));
    };
    Shape shape{.left = up_to(width), .top = up_to(height), .right = 0, .bottom = 0, .color = {}};
    shape.right = shape.left + up_to(width / 4 + 1);
    shape.bottom = shape.top + up_to(height / 4 + 1);
    for (float& part : shape.color) part = static_cast<float>(up_to(101) - 50);
    all.push_back(shape);
  }
  return all;
}

void add_noise(std::vector<float>& values, int width, int height, double detail,
               std::mt19937& random) {
  // The amplitude of an octave is proportional to its wavelength's root for a power of 1/f.
  for (int cell = 128; cell >= 1; cell /= 2) {
    // Found by trial: half a byte per pixel at quality 90, about as photographs have.
    constexpr double kFine = 2.5;
    const double share = cell <= 4 ? kFine * detail : 1.0;
    const auto amplitude = static_cast<float>(share * 5.0 * std::sqrt(cell));
    if (amplitude <= 0) continue;
    const Octave light(width, height, cell, random);
    const Octave color(width, height, 2 * cell, random);
    std::size_t at = 0;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x, at += 3) {
        const float both = amplitude * light.at(x, y);
        const float tint = 0.3F * amplitude * color.at(x, y);
        values[at] += both + tint;
        values[at + 1] += both;
        values[at + 2] += both - tint;
      }
    }
  }
}

}  // namespace

void Raster::shape(int new_width, int new_height) {
  width = new_width;
  height = new_height;
  pixels.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
}

Raster synthetic_image(int width, int height, double detail, std::uint32_t seed) {
  std::mt19937 random(seed);
  Raster image;
  image.shape(width, height);
  std::vector<float> values(image.pixels.size(), 128.0F);
  add_noise(values, width, height, detail, random);
  for (const Shape& shape : shapes(width, height, random)) {
    for (int y = shape.top; y < std::min(height, shape.bottom); ++y) {
      for (int x = shape.left; x < std::min(width, shape.right); ++x) {
        float* const pixel = &values[static_cast<std::size_t>(y * width + x) * 3];
        for (int part = 0; part < 3; ++part) pixel[part] += shape.color[part];
      }
    }
  }
  for (std::size_t i = 0; i < values.size(); ++i)
    image.pixels[i] = static_cast<std::uint8_t>(std::clamp(values[i], 0.0F, 255.0F));
  return image;
}

}  // namespace steelyard::probe
