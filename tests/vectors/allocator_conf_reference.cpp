#include <algorithm>
#include <bit>
#include <charconv>
#include <stdexcept>
#include <string>

#include "vectors/allocator_conf.h"

namespace steelyard::testing {
namespace {

std::int64_t whole(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw std::invalid_argument("not a whole number: " + std::string(text));
  }
  return value;
}

// "[256:1,512:2,>:8]": from the interval of 256 MiB on 1, of 512 MiB 2, above 8; below the first
// the first one's figure (CUDAAllocatorConfig.cpp, parseRoundUpPower2Divisions).
void set_intervals(std::string_view list, vram::AllocatorSettings& settings) {
  auto& intervals = settings.roundup_by_interval;
  list = list.substr(1, list.size() - 2);
  std::size_t last = 0;
  bool first = true;
  while (!list.empty()) {
    const std::string_view item = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), item.size() + 1));
    const std::string_view from = item.substr(0, item.find(':'));
    const std::int64_t divisions = whole(item.substr(from.size() + 1));
    if (from == ">") {
      std::fill(intervals.begin() + static_cast<std::ptrdiff_t>(last), intervals.end(), divisions);
      continue;
    }
    const auto mebibytes = static_cast<std::uint64_t>(whole(from));
    last = std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(mebibytes)) - 1,
                                 vram::kRoundupIntervals - 1);
    if (first) {
      std::fill(intervals.begin(), intervals.begin() + static_cast<std::ptrdiff_t>(last),
                divisions);
    }
    first = false;
    intervals[last] = divisions;
  }
}

}  // namespace

vram::AllocatorSettings settings_from_conf(std::string_view conf) {
  vram::AllocatorSettings settings;
  while (!conf.empty()) {
    const std::size_t colon = conf.find(':');
    const std::string_view key = conf.substr(0, colon);
    conf.remove_prefix(colon + 1);
    const bool list = conf.starts_with('[');
    const std::string_view value =
        list ? conf.substr(0, conf.find(']') + 1) : conf.substr(0, conf.find(','));
    conf.remove_prefix(std::min(conf.size(), value.size() + 1));
    if (key == "expandable_segments") {
      settings.expandable_segments = value == "True";
    } else if (key == "max_split_size_mb") {
      settings.max_split_size = Bytes(whole(value) << 20);
    } else if (key == "max_non_split_rounding_mb") {
      settings.max_non_split_rounding = Bytes(whole(value) << 20);
    } else if (key == "roundup_power2_divisions" && list) {
      set_intervals(value, settings);
    } else if (key == "roundup_power2_divisions") {
      settings.roundup_power2_divisions = whole(value);
    } else {
      throw std::invalid_argument("unknown allocator setting: " + std::string(key));
    }
  }
  return settings;
}

}  // namespace steelyard::testing
