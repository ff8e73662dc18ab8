// train.allocator: PYTORCH_CUDA_ALLOC_CONF as PyTorch reads it (2.6,
// c10/cuda/CUDAAllocatorConfig.cpp, parseArgs): "key:value,key:[256:1,>:8]".
#include <algorithm>
#include <bit>
#include <charconv>
#include <string_view>

#include "codec/leaf.h"

namespace steelyard::codec {
namespace {

using facts::AllocatorConf;

constexpr std::int64_t kLargestMebibytes = std::int64_t{1} << 24;
constexpr std::int64_t kLargeBufferMebibytes = 20;  // kLargeBuffer: smaller limits are refused
constexpr std::int64_t kMostDivisions = std::int64_t{1} << 20;

const std::vector<std::string>& known_keys() {
  static const std::vector<std::string> keys = {
      "expandable_segments",           "max_split_size_mb",
      "max_non_split_rounding_mb",     "roundup_power2_divisions",
      "garbage_collection_threshold",  "release_lock_on_cudamalloc",
      "pinned_use_cuda_host_register", "pinned_num_register_threads"};
  return keys;
}

// The threshold acts only beside set_per_process_memory_fraction (CUDACachingAllocator.cpp,
// malloc); the others are of speed or of the host.
bool moves_no_block(std::string_view key) {
  return key == "garbage_collection_threshold" || key == "release_lock_on_cudamalloc" ||
         key.starts_with("pinned_");
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Up to the separator, which is taken too.
std::string_view take(std::string_view& rest, char separator) {
  const std::string_view part = rest.substr(0, rest.find(separator));
  rest.remove_prefix(std::min(rest.size(), part.size() + 1));
  return trimmed(part);
}

std::optional<std::int64_t> whole(std::string_view text, std::int64_t least, std::int64_t most) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool all = error == std::errc() && end == text.data() + text.size();
  if (!all || value < least || value > most) return std::nullopt;
  return value;
}

std::optional<std::int64_t> divisions_of(std::string_view text) {
  const auto value = whole(text, 0, kMostDivisions);
  if (value && *value != 0 && !std::has_single_bit(static_cast<std::uint64_t>(*value))) return {};
  return value;
}

// "256:1,512:2,>:8": from 256 MiB on 1, from 512 MiB on 2, above 8; below the first the first
// one's figure.
bool read_intervals(std::string_view list, AllocatorConf& conf) {
  auto& intervals = conf.roundup_by_interval;
  std::size_t last = 0;
  for (bool first = true; !list.empty(); first = false) {
    std::string_view item = take(list, ',');
    const std::string_view from = take(item, ':');
    const auto divisions = divisions_of(trimmed(item));
    if (!divisions) return false;
    if (from == ">") {
      std::fill(intervals.begin() + static_cast<std::ptrdiff_t>(last), intervals.end(), *divisions);
      continue;
    }
    const auto mebibytes = whole(from, 1, kLargestMebibytes);
    if (!mebibytes || !std::has_single_bit(static_cast<std::uint64_t>(*mebibytes))) return false;
    last = std::min<std::size_t>(
        static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(*mebibytes))) - 1,
        facts::kRoundupIntervals - 1);
    const auto at = intervals.begin() + static_cast<std::ptrdiff_t>(last);
    if (first) std::fill(intervals.begin(), at, *divisions);
    *at = *divisions;
  }
  return true;
}

// What is accepted, where the value cannot be read.
std::optional<std::string> refuse(std::string_view key, std::string_view value,
                                  AllocatorConf& conf) {
  if (moves_no_block(key)) return {};
  if (key == "expandable_segments") {
    conf.expandable_segments = value == "True";
    if (value == "True" || value == "False") return {};
    return "True or False";
  }
  if (key == "roundup_power2_divisions") {
    const bool list = value.starts_with('[') && value.ends_with(']');
    if (list && read_intervals(value.substr(1, value.size() - 2), conf)) return {};
    const auto divisions = divisions_of(value);
    if (!list && divisions) {
      conf.roundup_power2_divisions = *divisions;
      return {};
    }
    return "a power of two, or a list as [256:1,512:2,>:8]";
  }
  const auto mebibytes = whole(value, kLargeBufferMebibytes + 1, kLargestMebibytes);
  if (!mebibytes) return fmt::format("whole mebibytes above {}", kLargeBufferMebibytes);
  auto& limit = key == "max_split_size_mb" ? conf.max_split_size : conf.max_non_split_rounding;
  limit = Bytes(*mebibytes << 20);
  return {};
}

Error unknown_setting(const facts::Value& value, std::string_view key) {
  Error error = wrong(value, "PYTORCH_CUDA_ALLOC_CONF with " + listed(known_keys()));
  error.code = ErrorCode::unknown_name;
  error.found = fmt::format("the setting \"{}\"", key);
  if (key == "backend") {
    error.hint = "cudaMallocAsync is the driver's own pool and is not modelled: leave the key out";
  } else if (const auto near = nearest_name(std::string(key), known_keys())) {
    error.hint = fmt::format("did you mean \"{}\"?", *near);
  }
  return error;
}

}  // namespace

Result<AllocatorConf> Leaf<AllocatorConf>::read(const facts::Value& value, const Rule&) {
  const auto* text = value.as_text();
  if (text == nullptr) return fail(wrong(value, "text, as PYTORCH_CUDA_ALLOC_CONF has it"));
  AllocatorConf conf;
  conf.text = *text;
  std::string_view rest = *text;
  while (!rest.empty()) {
    const std::string_view key = take(rest, ':');
    const auto& keys = known_keys();
    if (key == "backend" && trimmed(rest.substr(0, rest.find(','))) == "native") {
      take(rest, ',');
      continue;
    }
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      return fail(unknown_setting(value, key));
    }
    std::string_view setting;
    if (trimmed(rest).starts_with('[') && rest.find(']') != std::string_view::npos) {
      const std::size_t end = rest.find(']') + 1;
      setting = trimmed(rest.substr(0, end));
      rest.remove_prefix(end);
      take(rest, ',');
    } else {
      setting = take(rest, ',');
    }
    if (const auto accepted = refuse(key, setting, conf)) {
      Error error = wrong(value, fmt::format("for {} {}", key, *accepted));
      error.found = fmt::format("\"{}:{}\"", key, setting);
      return fail(std::move(error));
    }
  }
  return conf;
}

facts::Value Leaf<AllocatorConf>::write(const AllocatorConf& conf) {
  return conf.text;
}

facts::Value Leaf<AllocatorConf>::schema(const Rule& rule) {
  return Leaf<std::string>::schema(rule);
}

}  // namespace steelyard::codec
