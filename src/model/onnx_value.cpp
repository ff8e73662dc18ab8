#include "model/onnx_value.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

namespace steelyard::model {

Shape contiguous_strides(const Shape& shape) {
  Shape strides(shape.size(), 1);
  std::int64_t step = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    step = checked_multiply(step, std::max<std::int64_t>(shape[i], 1));
  }
  return strides;
}

bool lies_in_order(const Shape& shape, const Shape& strides) {
  std::int64_t step = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] == 1) continue;
    if (strides[i] != step) return false;
    step *= shape[i];
  }
  return true;
}

bool lies_densely(const Shape& shape, const Shape& strides) {
  std::vector<std::size_t> order(shape.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return strides[a] > strides[b]; });
  Shape sorted, sorted_strides;
  for (const std::size_t i : order) {
    sorted.push_back(shape[i]);
    sorted_strides.push_back(strides[i]);
  }
  return lies_in_order(sorted, sorted_strides);
}

std::optional<Shape> strides_of_view(const Shape& shape, const Shape& strides, const Shape& other) {
  Shape result(other.size(), 1);
  if (shape.empty() || elements(shape) == 0) return contiguous_strides(other);
  auto view = static_cast<std::ptrdiff_t>(other.size()) - 1;
  std::int64_t base = strides.back();
  std::int64_t left = 1, taken = 1;
  for (auto i = static_cast<std::ptrdiff_t>(shape.size()) - 1; i >= 0; --i) {
    const auto at = static_cast<std::size_t>(i);
    left *= shape[at];
    const bool ends = i == 0 || (shape[at - 1] != 1 && strides[at - 1] != left * base);
    if (!ends) continue;
    while (view >= 0 && (taken < left || other[static_cast<std::size_t>(view)] == 1)) {
      result[static_cast<std::size_t>(view)] = taken * base;
      taken *= other[static_cast<std::size_t>(view)];
      --view;
    }
    if (taken != left) return std::nullopt;
    if (i > 0) {
      base = strides[at - 1];
      left = taken = 1;
    }
  }
  return view == -1 ? std::optional(result) : std::nullopt;
}

std::optional<Shape> broadcast_of(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape out = longer;
  const std::size_t offset = longer.size() - shorter.size();
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    std::int64_t& size = out[offset + i];
    if (size == shorter[i] || shorter[i] == 1) continue;
    if (size != 1) return std::nullopt;
    size = shorter[i];
  }
  return out;
}

std::vector<std::int64_t> rearranged(const std::vector<std::int64_t>& values, const Shape& shape,
                                     const Shape& strides, std::int64_t offset) {
  std::vector<std::int64_t> result;
  const std::int64_t count = elements(shape);
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t left = i, at = offset;
    for (std::size_t d = shape.size(); d-- > 0; left /= shape[d])
      at += left % shape[d] * strides[d];
    result.push_back(values.at(static_cast<std::size_t>(at)));
  }
  return result;
}

std::string text_of(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ","));
}

}  // namespace steelyard::model
