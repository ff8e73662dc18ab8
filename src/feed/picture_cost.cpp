#include "feed/picture_cost.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <vector>

namespace steelyard::feed {
namespace {

// The shape of most photographs.
constexpr double kWidthOverHeight = 4.0 / 3.0;

// facts::name_of(StoragePattern::cached_records)
constexpr std::string_view kCachedRecord = "cached record";

struct Point {
  double bytes, seconds;
};

// By pixels.
using Sizes = std::map<double, std::vector<Point>>;

Sizes sizes_of(const facts::HostRates& rates, const std::string& work, Crew crew) {
  std::int64_t most = 1;
  for (const facts::HostImageRate& rate : rates.images) {
    if (rate.work == work) most = std::max(most, rate.threads);
  }
  Sizes sizes;
  for (const facts::HostImageRate& rate : rates.images) {
    const bool wanted = rate.threads == (crew == Crew::one ? 1 : most);
    if (rate.work != work || !wanted || rate.images.value() <= 0.0) continue;
    const auto pixels = static_cast<double>(rate.width) * static_cast<double>(rate.height);
    sizes[pixels].push_back(
        {rate.compressed.real(), static_cast<double>(rate.threads) / rate.images.value()});
  }
  return sizes;
}

// At one size: lines from one number of bytes to the next; beyond them the nearest line goes on,
// but never falls.
double at_bytes(std::vector<Point> points, double bytes) {
  const auto by_bytes = [](const Point& a, const Point& b) { return a.bytes < b.bytes; };
  std::sort(points.begin(), points.end(), by_bytes);
  // Pictures of the same bytes say nothing about what a byte costs.
  const auto alike = [](const Point& a, const Point& b) { return b.bytes < 1.01 * a.bytes; };
  points.erase(std::unique(points.begin(), points.end(), alike), points.end());
  if (points.size() == 1) return points.front().seconds;
  auto above = std::upper_bound(points.begin(), points.end(), Point{bytes, 0.0}, by_bytes);
  const bool outside = above == points.begin() || above == points.end();
  if (above == points.begin()) ++above;
  if (above == points.end()) --above;
  const auto below = std::prev(above);
  double slope = (above->seconds - below->seconds) / (above->bytes - below->bytes);
  if (outside) slope = std::max(0.0, slope);
  const double seconds = bytes > above->bytes ? above->seconds + slope * (bytes - above->bytes)
                                              : below->seconds + slope * (bytes - below->bytes);
  return std::max(0.1 * points.front().seconds, seconds);
}

}  // namespace

std::optional<PictureSize> picture_size(const Path& path) {
  if (!path.stored) return std::nullopt;
  PictureSize size{.bytes = path.stored->real()};
  if (path.job.data.stored_size.size() == 2) {
    size.height = static_cast<double>(path.job.data.stored_size[0]);
    size.width = static_cast<double>(path.job.data.stored_size[1]);
    return size;
  }
  if (path.job.data.kind != facts::DataKind::jpeg || path.constants.jpeg_bytes_per_pixel <= 0.0) {
    return std::nullopt;
  }
  size.height = std::sqrt(size.bytes / path.constants.jpeg_bytes_per_pixel / kWidthOverHeight);
  size.width = size.height * kWidthOverHeight;
  return size;
}

std::optional<Seconds> measured_seconds(const facts::HostRates& rates, const std::string& work,
                                        const PictureSize& size, Crew crew) {
  const Sizes sizes = sizes_of(rates, work, crew);
  if (sizes.empty()) return std::nullopt;
  const double pixels = size.pixels();
  const double density = size.bytes / pixels;
  const auto at = [&](const auto& entry) { return at_bytes(entry.second, density * entry.first); };
  auto above = sizes.lower_bound(pixels);
  if (above == sizes.end()) {
    const auto last = std::prev(sizes.end());
    return Seconds(at(*last) * pixels / last->first);
  }
  if (above == sizes.begin()) {
    if (sizes.size() == 1) return Seconds(at(*above) * pixels / above->first);
    ++above;
  }
  const auto below = std::prev(above);
  const double share = (pixels - below->first) / (above->first - below->first);
  const double seconds = at(*below) + share * (at(*above) - at(*below));
  // Below the smallest size the line could reach zero.
  return Seconds(std::max(seconds, 0.2 * at(*below)));
}

std::optional<Seconds> record_seconds(const facts::HostRates& rates, Bytes record,
                                      std::int64_t workers) {
  // By workers; of each the records by their bytes, and the seconds from one to the next.
  std::map<std::int64_t, std::vector<Point>> crews;
  for (const facts::HostImageRate& rate : rates.images) {
    if (rate.work != kCachedRecord || rate.images.value() <= 0.0) continue;
    crews[rate.threads].push_back({rate.compressed.real(), 1.0 / rate.images.value()});
  }
  if (crews.empty()) return std::nullopt;
  const auto at = [&](const auto& crew) { return at_bytes(crew.second, record.real()); };
  const auto above = crews.lower_bound(workers);
  if (above == crews.end()) return Seconds(at(*crews.rbegin()));
  if (above == crews.begin() || above->first == workers) return Seconds(at(*above));
  const auto below = std::prev(above);
  const double share = static_cast<double>(workers - below->first) /
                       static_cast<double>(above->first - below->first);
  const double rate = 1.0 / at(*below) + share * (1.0 / at(*above) - 1.0 / at(*below));
  return Seconds(1.0 / rate);
}

BytesPerSecond thread_copy_rate(const Path& path) {
  const auto& measured = path.machine.host.thread_copy;
  return measured ? *measured : path.constants.thread_copy;
}

BytesPerSecond cached_read_rate(const Path& path) {
  const std::string location = path.job.data.location.value_or("nvme");
  for (const facts::Storage& storage : path.machine.storage) {
    if (storage.name == location && storage.cached_read) return *storage.cached_read;
  }
  return path.constants.thread_copy;
}

BytesPerSecond memory_rate(const Path& path) {
  if (path.machine.host.memory_bandwidth) return *path.machine.host.memory_bandwidth;
  const auto& known = path.machine.host.sockets;
  const std::int64_t sockets = known ? std::max<std::int64_t>(1, *known) : 1;
  return path.constants.host_memory_bandwidth * static_cast<double>(sockets);
}

}  // namespace steelyard::feed
