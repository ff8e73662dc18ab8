#include "rehearse/image/crop.h"

#include <algorithm>
#include <cmath>

namespace steelyard::rehearse {
namespace {

constexpr double kLeastArea = 0.08, kMostArea = 1.0;
constexpr double kNarrowest = 3.0 / 4.0, kWidest = 4.0 / 3.0;  // width : height
constexpr int kTries = 10;

Box from_the_middle(int width, int height) {
  const double ratio = static_cast<double>(width) / height;
  Box box{.width = width, .height = height};
  if (ratio < kNarrowest) {
    box.height = static_cast<int>(std::lround(width / kNarrowest));
  } else if (ratio > kWidest) {
    box.width = static_cast<int>(std::lround(height * kWidest));
  }
  box.width = std::clamp(box.width, 1, width);
  box.height = std::clamp(box.height, 1, height);
  box.left = (width - box.width) / 2;
  box.top = (height - box.height) / 2;
  return box;
}

}  // namespace

Box random_resized_crop(int width, int height, Random& random) {
  const double area = static_cast<double>(width) * height;
  for (int i = 0; i < kTries; ++i) {
    const double wanted = area * random.between(kLeastArea, kMostArea);
    const double ratio = std::exp(random.between(std::log(kNarrowest), std::log(kWidest)));
    const int w = static_cast<int>(std::lround(std::sqrt(wanted * ratio)));
    const int h = static_cast<int>(std::lround(std::sqrt(wanted / ratio)));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    const int left = random.whole(width - w + 1);
    const int top = random.whole(height - h + 1);
    return {.left = left, .top = top, .width = w, .height = h};
  }
  return from_the_middle(width, height);
}

int legal_shrink(const Box& box, int side) {
  int shrink = 1;
  while (shrink < 8 && std::min(box.width, box.height) >= 2 * shrink * side) shrink *= 2;
  return shrink;
}

}  // namespace steelyard::rehearse
