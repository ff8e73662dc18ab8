#include "vram/bfc_allocator_reference.h"

#include <algorithm>

namespace steelyard::testing {

namespace {

constexpr int kBins = 21;

std::int64_t rounded_up(std::int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// BinNumForSize: bin b holds sizes from 256 << b up to twice that, the last one all above.
int bin_of(std::int64_t size) {
  int bin = 0;
  for (std::int64_t units = std::max<std::int64_t>(size, 256) / 256; units > 1; units /= 2) ++bin;
  return std::min(bin, kBins - 1);
}

}  // namespace

PlainBfc::PlainBfc(const vram::BfcSettings& settings) : settings_(settings) {
  const std::int64_t limit = settings.limit->value();
  const std::int64_t small = std::min<std::int64_t>(limit, 2 << 20);
  region_bytes_ = rounded_up(settings.allow_growth ? small : limit);
}

std::int64_t PlainBfc::allocated() const {
  std::int64_t sum = 0;
  for (const Region& region : regions_) {
    for (const Chunk& chunk : region.chunks) sum += chunk.id == 0 ? 0 : chunk.size;
  }
  return sum;
}

std::int64_t PlainBfc::reserved() const {
  std::int64_t sum = 0;
  for (const Region& region : regions_) {
    for (const Chunk& chunk : region.chunks) sum += chunk.size;
  }
  return sum;
}

// Bin by bin; in a bin the smallest chunk that is large enough, the lowest address among equals.
std::optional<PlainBfc::Place> PlainBfc::best_fit(std::int64_t rounded) const {
  for (int bin = bin_of(rounded); bin < kBins; ++bin) {
    std::optional<Place> best;
    std::int64_t best_size = 0;
    for (std::size_t r = 0; r < regions_.size(); ++r) {
      for (std::size_t c = 0; c < regions_[r].chunks.size(); ++c) {
        const Chunk& chunk = regions_[r].chunks[c];
        if (chunk.id != 0 || bin_of(chunk.size) != bin || chunk.size < rounded) continue;
        if (best && chunk.size >= best_size) continue;
        best = Place{r, c};
        best_size = chunk.size;
      }
    }
    if (best) return best;
  }
  return std::nullopt;
}

std::optional<std::int64_t> PlainBfc::take(std::int64_t rounded) {
  const std::optional<Place> place = best_fit(rounded);
  if (!place) return std::nullopt;
  std::vector<Chunk>& chunks = regions_[place->region].chunks;
  const auto at = static_cast<std::ptrdiff_t>(place->chunk);
  const std::int64_t whole = chunks[place->chunk].size;
  if (whole >= rounded * 2 || whole - rounded >= (128 << 20)) {
    chunks[place->chunk].size = rounded;
    chunks.insert(chunks.begin() + at + 1, Chunk{whole - rounded, 0});
  }
  chunks[place->chunk].id = ++last_id_;
  return last_id_;
}

bool PlainBfc::extend(std::int64_t rounded) {
  const std::int64_t available = (settings_.limit->value() - reserved()) / 256 * 256;
  if (rounded > available) return false;
  bool raised = false;
  for (; rounded > region_bytes_; raised = true) region_bytes_ *= 2;
  std::int64_t bytes = std::min(region_bytes_, available);
  while (settings_.device_bytes && bytes > settings_.device_bytes->value() - reserved()) {
    const float tenths = 0.9F * static_cast<float>(bytes);
    const std::int64_t less = rounded_up(static_cast<std::int64_t>(tenths));
    bytes = less >= bytes ? bytes - 256 : less;
    if (bytes < rounded) return false;
  }
  if (!raised) region_bytes_ = std::min<std::int64_t>(region_bytes_ * 2, std::int64_t{1} << 60);
  regions_.push_back({++last_region_, {Chunk{bytes, 0}}});
  return true;
}

bool PlainBfc::drop_free_regions(std::int64_t rounded) {
  if (!settings_.garbage_collection) return false;
  const auto unused = [](const Region& region) {
    return std::all_of(region.chunks.begin(), region.chunks.end(),
                       [](const Chunk& chunk) { return chunk.id == 0; });
  };
  std::int64_t free = 0;
  for (const Region& region : regions_) {
    if (!unused(region)) continue;
    for (const Chunk& chunk : region.chunks) free += chunk.size;
  }
  if (free == 0 || rounded > settings_.limit->value() - reserved() + free) return false;
  std::erase_if(regions_, unused);
  return true;
}

std::optional<std::int64_t> PlainBfc::allocate(std::int64_t requested) {
  const std::int64_t rounded = rounded_up(requested);
  if (const auto id = take(rounded)) return id;
  if (extend(rounded)) return take(rounded);
  if (drop_free_regions(rounded) && extend(rounded)) return take(rounded);
  return std::nullopt;
}

void PlainBfc::free(std::int64_t id) {
  for (Region& region : regions_) {
    for (Chunk& chunk : region.chunks) {
      if (chunk.id == id) chunk.id = 0;
    }
    std::vector<Chunk> joined;
    for (const Chunk& chunk : region.chunks) {
      if (chunk.id == 0 && !joined.empty() && joined.back().id == 0) {
        joined.back().size += chunk.size;
      } else {
        joined.push_back(chunk);
      }
    }
    region.chunks = std::move(joined);
  }
}

}  // namespace steelyard::testing
