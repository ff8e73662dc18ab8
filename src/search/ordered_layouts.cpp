#include "search/ordered_layouts.h"

#include <algorithm>
#include <array>

#include "search/words.h"

namespace steelyard::search {

namespace {

// Planned at once, however many cores and processes there are: what is planned besides what was
// needed does not depend on them.
constexpr std::size_t kBatch = 64;
constexpr std::int64_t kBlock = 256;    // of bounds, between two questions whether to go on
constexpr double kSurely = 1.0 - 1e-9;  // sums of the same figures in another order

}  // namespace

std::int64_t whole_gib(Bytes bytes) {
  return ceil_divide(bytes.value(), std::int64_t{1} << 30);
}

bool OrderedLayouts::can_win(const Bounded& layout) const {
  if (room_.step && layout.step > room_.step->value()) return false;
  return layout.ram_gib < ram_limit_;
}

void OrderedLayouts::bound(const Tick& tick) {
  constexpr std::size_t kRound = 64;  // blocks
  const std::int64_t size = space_.size();
  for (std::int64_t begin = 0; begin < size;) {
    const std::int64_t end = std::min(size, begin + static_cast<std::int64_t>(kRound) * kBlock);
    const auto count = static_cast<std::size_t>(ceil_divide(end - begin, kBlock));
    struct Block {
      std::array<Bounded, kBlock> layouts;
    };
    const auto blocks = made_by_all<Block>(crew_, count, [&](std::size_t at) {
      Block block;
      facts::Job job = space_.job();
      const std::int64_t first = begin + static_cast<std::int64_t>(at) * kBlock;
      for (std::int64_t i = first; i < std::min(end, first + kBlock); ++i) {
        Bounded& one = block.layouts[static_cast<std::size_t>(i - first)];
        one.number = i;
        one.legal = space_.apply(i, job);
        if (!one.legal || !bounds_) continue;
        const std::optional<Bound> bound = bounds_(job);
        if (!bound) continue;
        one.step = bound->step.value() * kSurely;
        one.ram_gib = whole_gib(bound->ram);
        one.vram = bound->vram.value();
      }
      return block;
    });
    std::int64_t settled = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const Bounded& one = blocks[static_cast<std::size_t>((i - begin) / kBlock)]
                               .layouts[static_cast<std::size_t>((i - begin) % kBlock)];
      if (!one.legal) {
        ++settled;
        continue;
      }
      const bool no_ram = room_.ram && one.ram_gib > whole_gib(*room_.ram);
      const bool no_vram = room_.vram && one.vram > room_.vram->value();
      if (no_ram || no_vram) {
        ++settled;
        ++legal_;
        ++ruled_out_;
        if (!no_ram) too_large_.push_back(one);
      } else {
        waiting_.push_back(one);
      }
    }
    begin = end;
    if (!tick(settled)) break;
  }
  const auto order = [](const Bounded& a, const Bounded& b) {
    return std::pair(a.step, a.number) < std::pair(b.step, b.number);
  };
  std::sort(waiting_.begin(), waiting_.end(), order);
  std::sort(too_large_.begin(), too_large_.end(), order);
}

OrderedLayouts::Planned OrderedLayouts::planned(std::int64_t number) const {
  Planned result;
  facts::Job job = space_.job();
  static_cast<void>(space_.apply(number, job));
  const Result<facts::Plan> plan = planner_(job, Depth::without_vram);
  result.refused = !plan;
  if (!plan || !plan->pace.step) return result;
  result.step = plan->pace.step->value();
  result.ram_gib = whole_gib(plan->ram.peak);
  result.counts = plan->fits_ram.value_or(true) &&
                  (!room_.ram || result.ram_gib <= whole_gib(*room_.ram)) &&
                  (!room_.step || result.step <= room_.step->value());
  return result;
}

void OrderedLayouts::plan_some(const Tick& tick) {
  std::vector<Bounded> batch;
  std::int64_t settled = 0;
  for (; next_ < waiting_.size() && batch.size() < kBatch; ++next_) {
    if (can_win(waiting_[next_])) {
      batch.push_back(waiting_[next_]);
    } else {
      ++ruled_out_;
      ++legal_;
      ++settled;
    }
  }
  const auto made = made_by_all<Planned>(crew_, batch.size(),
                                         [&](std::size_t i) { return planned(batch[i].number); });
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const std::int64_t number = batch[i].number;
    if (made[i].refused) {
      ++refused_;
      if (first_refused_ < 0 || number < first_refused_) first_refused_ = number;
      continue;
    }
    ++legal_;
    if (!made[i].counts) continue;
    bounds_fail_ =
        bounds_fail_ || made[i].step < batch[i].step || made[i].ram_gib < batch[i].ram_gib;
    ready_.emplace(std::pair(made[i].step, number), made[i].ram_gib);
  }
  static_cast<void>(tick(settled + static_cast<std::int64_t>(batch.size())));
}

std::optional<Candidate> OrderedLayouts::next(const Tick& tick) {
  while (true) {
    const bool more = next_ < waiting_.size();
    if (!ready_.empty() && (!more || ready_.begin()->first.first < waiting_[next_].step)) {
      const auto [key, ram] = *ready_.begin();
      ready_.erase(ready_.begin());
      return Candidate{key.second, Seconds(key.first), ram};
    }
    if (!more) return std::nullopt;
    plan_some(tick);
  }
}

std::string OrderedLayouts::why_refused() const {
  if (first_refused_ < 0) return {};
  facts::Job job = space_.job();
  static_cast<void>(space_.apply(first_refused_, job));
  const Result<facts::Plan> plan = planner_(job, Depth::without_vram);
  return plan ? std::string() : one_line(plan.error());
}

std::vector<std::int64_t> OrderedLayouts::some(std::size_t most) const {
  std::vector<std::int64_t> numbers;
  const std::size_t all = waiting_.size() + too_large_.size();
  const std::size_t step = std::max<std::size_t>(1, all / most);
  for (std::size_t i = 0; i < all; i += step) {
    numbers.push_back(i < waiting_.size() ? waiting_[i].number
                                          : too_large_[i - waiting_.size()].number);
  }
  return numbers;
}

}  // namespace steelyard::search
