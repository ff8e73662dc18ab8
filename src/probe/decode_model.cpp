#include "probe/decode_model.h"

#include <algorithm>
#include <cmath>

namespace steelyard::probe {

namespace {

// sums over the points of a*a, a*b, b*b, a, b with a = pixels / time and b = bytes / time: the
// minimum of sum (p a + q b - 1)^2.
struct Sums {
  double aa = 0, ab = 0, bb = 0, a = 0, b = 0;
};

Sums sums_of(const std::vector<DecodePoint>& points) {
  Sums sums;
  for (const DecodePoint& point : points) {
    const double a = point.pixels / point.time.value();
    const double b = point.bytes / point.time.value();
    sums.aa += a * a;
    sums.ab += a * b;
    sums.bb += b * b;
    sums.a += a;
    sums.b += b;
  }
  return sums;
}

}  // namespace

std::optional<facts::DecodeModel> fit_decode_model(const std::vector<DecodePoint>& points) {
  if (points.size() < 2) return std::nullopt;
  for (const DecodePoint& point : points) {
    if (point.time <= Seconds(0) || point.pixels <= 0 || point.bytes <= 0) return std::nullopt;
  }
  const Sums s = sums_of(points);
  const double determinant = s.aa * s.bb - s.ab * s.ab;
  // The cosine of the angle between the two columns is nearly one: they say the same.
  constexpr double kNearlyParallel = 1e-4;
  if (determinant < kNearlyParallel * s.aa * s.bb) return std::nullopt;
  double per_pixel = (s.a * s.bb - s.b * s.ab) / determinant;
  double per_byte = (s.b * s.aa - s.a * s.ab) / determinant;
  if (per_pixel < 0) {
    per_pixel = 0;
    per_byte = s.b / s.bb;
  } else if (per_byte < 0) {
    per_byte = 0;
    per_pixel = s.a / s.aa;
  }
  facts::DecodeModel model{.per_pixel = Seconds(per_pixel),
                           .per_byte = Seconds(per_byte),
                           .points = static_cast<int>(points.size())};
  for (const DecodePoint& point : points) {
    const double fitted = per_pixel * point.pixels + per_byte * point.bytes;
    const Ratio error(std::abs(fitted / point.time.value() - 1));
    model.worst_error = std::max(model.worst_error, error);
  }
  return model;
}

}  // namespace steelyard::probe
