#include <fmt/format.h>

#include "rehearse/write/writers.h"

namespace steelyard::rehearse {

// numpy/lib/format.py, version 1.0.
std::string npy_header(std::string_view descr, const std::vector<std::uint64_t>& shape) {
  std::string axes;
  for (const std::uint64_t axis : shape) axes += fmt::format("{}, ", axis);
  if (shape.size() == 1)
    axes.pop_back();  // "(5,)"
  else if (!axes.empty())
    axes.resize(axes.size() - 2);
  std::string text =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, axes);
  constexpr std::size_t kHead = 10, kAlign = 64;
  while ((kHead + text.size() + 1) % kAlign != 0) text.push_back(' ');
  text.push_back('\n');
  std::string header = "\x93NUMPY";
  append_le(header, 1, 2);
  append_le(header, text.size(), 2);
  return header + text;
}

}  // namespace steelyard::rehearse
