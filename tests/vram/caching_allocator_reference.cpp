#include "vram/caching_allocator_reference.h"

#include <algorithm>
#include <limits>

namespace steelyard::testing {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

bool is_small(std::int64_t size) {
  return size <= kMiB;
}

std::int64_t up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

std::int64_t page(bool small) {
  return small ? 2 * kMiB : 20 * kMiB;
}

}  // namespace

PlainAllocator::PlainAllocator(const vram::AllocatorSettings& settings) : settings_(settings) {}

std::int64_t PlainAllocator::max_split() const {
  return settings_.max_split_size ? settings_.max_split_size->value()
                                  : std::numeric_limits<std::int64_t>::max();
}

std::int64_t PlainAllocator::rounded(std::int64_t requested) const {
  std::int64_t power = 1;  // the largest power of two not above the request
  int log2 = 0;
  while (power * 2 <= requested) {
    power *= 2;
    ++log2;
  }
  const auto interval = static_cast<std::size_t>(std::min(std::max(log2 - 20, 0), 15));
  std::int64_t divisions = settings_.roundup_by_interval[interval];
  if (divisions == 0) divisions = settings_.roundup_power2_divisions;
  if (divisions > 1 && requested > 512 * divisions) {
    for (std::int64_t size = power;; size += power / divisions) {
      if (size >= requested) return size;
    }
  }
  return std::max<std::int64_t>(512, up(requested, 512));
}

std::int64_t PlainAllocator::allocated() const {
  std::int64_t sum = 0;
  for (const Segment& segment : segments_) {
    for (const Block& block : segment.blocks) sum += block.id != 0 ? block.size : 0;
  }
  return sum;
}

std::int64_t PlainAllocator::reserved() const {
  std::int64_t sum = 0;
  for (const Segment& segment : segments_) {
    for (const Block& block : segment.blocks) sum += block.mapped ? block.size : 0;
  }
  return sum;
}

std::int64_t PlainAllocator::room() const {
  return settings_.device_bytes->value() - reserved();
}

void PlainAllocator::join_neighbours(Segment& segment) {
  auto& blocks = segment.blocks;
  for (std::size_t i = 0; i + 1 < blocks.size();) {
    const Block& next = blocks[i + 1];
    if (blocks[i].id == 0 && next.id == 0 && blocks[i].mapped == next.mapped) {
      blocks[i].size += next.size;
      blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    } else {
      ++i;
    }
  }
}

std::optional<std::int64_t> PlainAllocator::allocate(std::int64_t requested, int stream) {
  const std::int64_t size = rounded(requested);
  std::optional<Place> place = best_fit(size, stream);
  if (!place) place = with_new_memory(size, stream);
  if (!place && release_oversize(size, stream)) place = with_new_memory(size, stream);
  if (!place) {
    empty_cache();
    place = with_new_memory(size, stream);
  }
  if (!place) return std::nullopt;
  auto& blocks = segments_[place->segment].blocks;
  const std::int64_t rest = blocks[place->block].size - size;
  const bool split = is_small(size) || settings_.expandable_segments
                         ? rest >= 512
                         : rest > kMiB && size < max_split();
  if (split) {
    blocks[place->block].size = size;
    blocks.insert(blocks.begin() + static_cast<std::ptrdiff_t>(place->block) + 1, Block{rest});
  }
  blocks[place->block].id = ++last_id_;
  return last_id_;
}

void PlainAllocator::free(std::int64_t id) {
  for (Segment& segment : segments_) {
    for (Block& block : segment.blocks) {
      if (block.id == id) block.id = 0;
    }
    join_neighbours(segment);
  }
}

// The smallest free block that is large enough, the lowest among equals. With expandable segments
// the search goes on to larger blocks as long as the next one could grow to less than this one.
std::optional<PlainAllocator::Place> PlainAllocator::best_fit(std::int64_t size, int stream) const {
  struct Candidate {
    std::int64_t size, grown;
    Place place;
  };
  std::vector<Candidate> candidates;  // in address order
  for (std::size_t s = 0; s < segments_.size(); ++s) {
    const Segment& segment = segments_[s];
    if (segment.small != is_small(size) || segment.stream != stream) continue;
    for (std::size_t b = 0; b < segment.blocks.size(); ++b) {
      const Block& block = segment.blocks[b];
      if (block.id != 0 || !block.mapped || block.size < size) continue;
      const bool can_grow = b + 1 < segment.blocks.size() && !segment.blocks[b + 1].mapped;
      const std::int64_t grown = block.size + (can_grow ? segment.blocks[b + 1].size : 0);
      candidates.push_back({block.size, grown, {s, b}});
    }
  }
  if (candidates.empty()) return std::nullopt;
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.size < b.size; });
  std::size_t chosen = 0;
  if (settings_.expandable_segments) {
    while (chosen + 1 < candidates.size() &&
           candidates[chosen + 1].grown < candidates[chosen].grown) {
      ++chosen;
    }
  }
  const std::int64_t found = candidates[chosen].size;
  if (size < max_split() && found >= max_split()) return std::nullopt;
  if (size >= max_split() && found >= size + settings_.max_non_split_rounding.value()) {
    return std::nullopt;
  }
  return candidates[chosen].place;
}

std::optional<PlainAllocator::Place> PlainAllocator::with_new_memory(std::int64_t size,
                                                                     int stream) {
  if (settings_.expandable_segments) return expanded(size, stream);
  std::int64_t bytes = up(size, 2 * kMiB);
  if (is_small(size)) {
    bytes = 2 * kMiB;
  } else if (size < 10 * kMiB) {
    bytes = 20 * kMiB;
  }
  if (bytes > room()) return std::nullopt;
  segments_.push_back({is_small(size), stream, {Block{bytes}}});
  return Place{segments_.size() - 1, 0};
}

bool PlainAllocator::release_oversize(std::int64_t size, int stream) {
  if (!settings_.max_split_size || settings_.expandable_segments) return false;
  const std::int64_t wanted = std::max(size, max_split());
  const auto free_oversize = [&](const Segment& segment) {
    return segment.small == is_small(size) && segment.stream == stream &&
           segment.blocks.size() == 1 && segment.blocks[0].id == 0 &&
           segment.blocks[0].size >= max_split();
  };
  std::int64_t released = 0;
  while (released < wanted) {
    // The smallest that is enough alone (the lowest of equals), or else the largest (the highest).
    std::optional<std::size_t> enough, largest;
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      if (!free_oversize(segments_[s])) continue;
      const std::int64_t bytes = segments_[s].blocks[0].size;
      if (bytes >= wanted && (!enough || bytes < segments_[*enough].blocks[0].size)) enough = s;
      if (!largest || bytes >= segments_[*largest].blocks[0].size) largest = s;
    }
    if (!largest) return false;
    const std::size_t chosen = enough ? *enough : *largest;
    released += segments_[chosen].blocks[0].size;
    segments_.erase(segments_.begin() + static_cast<std::ptrdiff_t>(chosen));
  }
  return true;
}

void PlainAllocator::empty_cache() {
  if (settings_.expandable_segments) {
    for (Segment& segment : segments_) unmap_free_pages(segment);
  }
  std::erase_if(segments_, [&](const Segment& segment) {
    const bool whole = segment.blocks.size() == 1 && segment.blocks[0].id == 0;
    return whole && segment.blocks[0].mapped != settings_.expandable_segments;
  });
}

std::optional<PlainAllocator::Place> PlainAllocator::expanded(std::int64_t size, int stream) {
  for (std::size_t s = 0; s < segments_.size(); ++s) {
    const auto& blocks = segments_[s].blocks;
    if (segments_[s].small != is_small(size) || segments_[s].stream != stream) continue;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      if (blocks[b].mapped) continue;
      const std::size_t first = b > 0 && blocks[b - 1].id == 0 ? b - 1 : b;
      std::int64_t free = 0;
      for (std::size_t i = first; i < blocks.size() && blocks[i].id == 0; ++i) {
        free += blocks[i].size;
      }
      if (free >= size) return map_from(s, first, size);
    }
  }
  const std::int64_t device = settings_.device_bytes->value();
  const std::int64_t range = up(device + device / 8, page(is_small(size)));
  segments_.push_back({is_small(size), stream, {Block{range, false}}});
  return map_from(segments_.size() - 1, 0, size);
}

// Maps pages behind the free block `first` (or at its begin, when it is unmapped itself) until
// there are `size` bytes in one piece.
std::optional<PlainAllocator::Place> PlainAllocator::map_from(std::size_t s, std::size_t first,
                                                              std::int64_t size) {
  Segment& segment = segments_[s];
  auto& blocks = segment.blocks;
  std::size_t at = blocks[first].mapped ? first + 1 : first;
  std::int64_t have = blocks[first].mapped ? blocks[first].size : 0;
  for (; have < size; ++at) {
    if (!blocks[at].mapped) {
      const std::int64_t bytes = up(std::min(size - have, blocks[at].size), page(segment.small));
      if (bytes > room()) {
        join_neighbours(segment);
        return std::nullopt;
      }
      const std::int64_t rest = blocks[at].size - bytes;
      blocks[at] = Block{bytes};
      if (rest > 0) {
        blocks.insert(blocks.begin() + static_cast<std::ptrdiff_t>(at) + 1, Block{rest, false});
      }
    }
    have += blocks[at].size;
  }
  join_neighbours(segment);
  return Place{s, first};
}

void PlainAllocator::unmap_free_pages(Segment& segment) {
  const std::int64_t bytes = page(segment.small);
  std::vector<Block> blocks;
  std::int64_t offset = 0;
  for (const Block& block : segment.blocks) {
    const std::int64_t begin = up(offset, bytes);
    const std::int64_t end = (offset + block.size) / bytes * bytes;
    if (block.id == 0 && block.mapped && begin < end) {
      if (begin > offset) blocks.push_back(Block{begin - offset});
      blocks.push_back(Block{end - begin, false});
      if (offset + block.size > end) blocks.push_back(Block{offset + block.size - end});
    } else {
      blocks.push_back(block);
    }
    offset += block.size;
  }
  segment.blocks = blocks;
  join_neighbours(segment);
}

}  // namespace steelyard::testing
