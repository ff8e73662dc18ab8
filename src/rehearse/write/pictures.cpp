#include "rehearse/write/pictures.h"

#include <turbojpeg.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

namespace steelyard::rehearse {
namespace {

constexpr int kWidth = 2048, kHeight = 1536;
constexpr int kQuality = 90;
constexpr int kOctaves = 9;  // from 512 pixels to 2

// Values on a grid, drawn smooth between its points.
void add_octave(std::vector<float>& plane, int cell, float strength, Noise& noise) {
  const int columns = kWidth / cell + 2, rows = kHeight / cell + 2;
  std::vector<float> grid(static_cast<std::size_t>(columns) * static_cast<std::size_t>(rows));
  for (float& value : grid) value = static_cast<float>(noise.share() - 0.5) * strength;
  const float step = 1.0F / static_cast<float>(cell);
  for (int y = 0; y < kHeight; ++y) {
    const float* top = &grid[static_cast<std::size_t>(y / cell * columns)];
    const float* bottom = top + columns;
    const float down = static_cast<float>(y % cell) * step;
    float* to = &plane[static_cast<std::size_t>(y) * kWidth];
    for (int x = 0; x < kWidth; ++x) {
      const int column = x / cell;
      const float right = static_cast<float>(x % cell) * step;
      const float above = top[column] + (top[column + 1] - top[column]) * right;
      const float below = bottom[column] + (bottom[column + 1] - bottom[column]) * right;
      to[x] += above + (below - above) * down;
    }
  }
}

// Natural images have their strength in low frequencies (Field 1987). How fast it falls from octave
// to octave, and the grain, are such that an image of quality 90 has 0.5 to 0.6 bytes per pixel:
// ImageNet's have 0.59 (500 x 375 pixels in 110 kB).
constexpr float kFall = 0.92F, kGrain = 32;

std::vector<float> plane_of(Noise& noise, float strength, int octaves, float grain) {
  std::vector<float> plane(static_cast<std::size_t>(kWidth) * kHeight);
  for (int octave = 0; octave < octaves; ++octave) {
    add_octave(plane, 512 >> octave, strength, noise);
    strength *= kFall;
  }
  for (float& value : plane) value += static_cast<float>(noise.share() - 0.5) * grain;
  return plane;
}

unsigned char clamped(float value) {
  return static_cast<unsigned char>(std::clamp(value, 0.0F, 255.0F));
}

struct Compressor {
  tjhandle handle = tjInitCompress();
  Compressor() = default;
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;
  ~Compressor() {
    if (handle != nullptr) tjDestroy(handle);
  }
};

// Comments of `gap` bytes in all (4 at least) behind the first segment.
void fill_up(std::vector<unsigned char>& jpeg, std::uint64_t gap, Noise& noise) {
  constexpr std::uint64_t kHead = 4, kLongest = 65'535 + 2;
  const std::size_t first = 4 + static_cast<std::size_t>(jpeg[4] << 8 | jpeg[5]);
  std::vector<unsigned char> comments;
  comments.reserve(static_cast<std::size_t>(gap));
  while (gap > 0) {
    std::uint64_t length = std::min(gap, kLongest);
    if (gap - length > 0 && gap - length < kHead) length -= kHead;  // leave room for the last one
    const auto stated = static_cast<unsigned>(length - 2);
    const std::size_t start = comments.size();
    comments.resize(start + static_cast<std::size_t>(length));
    comments[start] = 0xff;
    comments[start + 1] = 0xfe;  // COM
    comments[start + 2] = static_cast<unsigned char>(stated >> 8);
    comments[start + 3] = static_cast<unsigned char>(stated & 0xffU);
    noise.fill(std::span(comments).subspan(start + kHead));
    gap -= length;
  }
  jpeg.insert(jpeg.begin() + static_cast<std::ptrdiff_t>(first), comments.begin(), comments.end());
}

}  // namespace

void Pictures::paint(std::uint64_t seed) {
  Noise noise(~seed);  // no stream of the records
  const std::vector<float> light = plane_of(noise, 170, kOctaves, kGrain);
  const std::vector<float> red = plane_of(noise, 60, 6, 0), blue = plane_of(noise, 60, 6, 0);
  canvas_.resize(light.size() * 3);
  for (std::size_t i = 0; i < light.size(); ++i) {
    const float grey = 128 + light[i];
    canvas_[3 * i] = clamped(grey + red[i]);
    canvas_[3 * i + 1] = clamped(grey - 0.3F * (red[i] + blue[i]));
    canvas_[3 * i + 2] = clamped(grey + blue[i]);
  }
}

Result<Pictures> Pictures::create(std::uint64_t seed) {
  Pictures pictures;
  pictures.paint(seed);
  std::vector<unsigned char> jpeg;
  constexpr int kProbe = 512;
  STEELYARD_CHECK(pictures.encode(kWidth / 4, kHeight / 4, kProbe, kProbe, jpeg));
  pictures.bytes_per_pixel_ = static_cast<double>(jpeg.size()) / (kProbe * kProbe);
  return pictures;
}

Result<void> Pictures::encode(int x, int y, int width, int height,
                              std::vector<unsigned char>& jpeg) const {
  thread_local const Compressor compressor;
  jpeg.resize(tjBufSize(width, height, TJSAMP_420));
  unsigned char* to = jpeg.data();
  unsigned long size = jpeg.size();
  const auto offset = (static_cast<std::size_t>(y) * kWidth + static_cast<std::size_t>(x)) * 3;
  const int done = compressor.handle == nullptr
                       ? -1
                       : tjCompress2(compressor.handle, &canvas_[offset], width, kWidth * 3, height,
                                     TJPF_RGB, &to, &size, TJSAMP_420, kQuality, TJFLAG_NOREALLOC);
  if (done != 0) {
    return fail({.code = ErrorCode::internal,
                 .subject = "a JPEG image",
                 .found = tjGetErrorStr2(compressor.handle),
                 .accepted = "an image that libjpeg-turbo writes"});
  }
  jpeg.resize(size);
  return {};
}

Result<void> Pictures::make(std::uint64_t bytes, Noise& noise,
                            std::vector<unsigned char>& jpeg) const {
  constexpr double kShape = 4.0 / 3.0;
  constexpr std::uint64_t kComment = 4;
  double area = static_cast<double>(bytes) / bytes_per_pixel_ * 0.97;
  for (;;) {
    const int width = std::clamp(static_cast<int>(std::sqrt(area * kShape)), 8, kWidth);
    const int height = std::clamp(static_cast<int>(area / width), 8, kHeight);
    const int x = static_cast<int>(noise.below(static_cast<std::uint64_t>(kWidth - width + 1)));
    const int y = static_cast<int>(noise.below(static_cast<std::uint64_t>(kHeight - height + 1)));
    STEELYARD_CHECK(encode(x, y, width, height, jpeg));
    if (jpeg.size() == bytes || (width == 8 && height == 8 && jpeg.size() > bytes)) return {};
    if (jpeg.size() + kComment <= bytes) {
      fill_up(jpeg, bytes - jpeg.size(), noise);
      return {};
    }
    area = std::min(area * 0.9,
                    area * 0.95 * static_cast<double>(bytes) / static_cast<double>(jpeg.size()));
  }
}

}  // namespace steelyard::rehearse
