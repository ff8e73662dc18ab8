#include "search/ordered_layouts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

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
        rule_out(one);
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

void OrderedLayouts::rule_out(const Bounded& layout) {
  ++legal_;
  ++ruled_out_;
  too_large_.push_back(layout);
}

OrderedLayouts::Planned OrderedLayouts::planned(std::int64_t number) const {
  Planned result;
  facts::Job job = space_.job();
  static_cast<void>(space_.apply(number, job));
  const Result<facts::Plan> plan = planner_(job, Depth::without_vram);
  result.refused = !plan;
  if (!plan) return result;
  result.step =
      plan->pace.step ? plan->pace.step->value() : std::numeric_limits<double>::infinity();
  result.ram_gib = whole_gib(plan->ram.peak);
  result.counts = plan->fits_ram.value_or(true) &&
                  (!room_.ram || result.ram_gib <= whole_gib(*room_.ram)) &&
                  (!room_.step || result.step <= room_.step->value());
  return result;
}

bool OrderedLayouts::plan_some(const Tick& tick) {
  std::vector<Bounded> batch;
  std::vector<std::size_t> places;  // in waiting_
  std::int64_t settled = 0;
  for (; next_ < waiting_.size() && batch.size() < kBatch; ++next_) {
    if (can_win(waiting_[next_])) {
      batch.push_back(waiting_[next_]);
      places.push_back(next_);
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
      waiting_[places[i]].legal = false;
      if (first_refused_ < 0 || number < first_refused_) first_refused_ = number;
      continue;
    }
    ++legal_;
    if (!made[i].counts) continue;
    bounds_fail_ =
        bounds_fail_ || made[i].step < batch[i].step || made[i].ram_gib < batch[i].ram_gib;
    ready_.emplace(made[i].step, made[i].ram_gib, number);
  }
  return tick(settled + static_cast<std::int64_t>(batch.size()));
}

std::optional<Candidate> OrderedLayouts::next(const Tick& tick) {
  while (true) {
    const bool more = next_ < waiting_.size() && !stopped_;
    if (!ready_.empty() && (!more || std::get<0>(*ready_.begin()) < waiting_[next_].step)) {
      const auto [step, ram, number] = *ready_.begin();
      ready_.erase(ready_.begin());
      if (!std::isfinite(step)) return Candidate{number, std::nullopt, ram};
      return Candidate{number, Seconds(step), ram};
    }
    if (!more) return std::nullopt;
    stopped_ = !plan_some(tick);
  }
}

std::string OrderedLayouts::why_refused() const {
  if (first_refused_ < 0) return {};
  facts::Job job = space_.job();
  static_cast<void>(space_.apply(first_refused_, job));
  const Result<facts::Plan> plan = planner_(job, Depth::without_vram);
  return plan ? std::string() : one_line(plan.error());
}

double OrderedLayouts::lacks_at_least(const Bounded& layout) const {
  double lacks = 0.0;
  const auto more = [&lacks](double needed, const std::optional<Bytes>& there) {
    if (there && there->value() > 0) lacks = std::max(lacks, needed / there->real());
  };
  constexpr double kGib = 1024.0 * 1024.0 * 1024.0;
  more(static_cast<double>(layout.vram), room_.vram);
  more(static_cast<double>(layout.ram_gib - 1) * kGib, room_.ram);  // which was rounded up
  return lacks;
}

std::vector<Lacking> OrderedLayouts::nearest(std::size_t most) const {
  std::vector<Lacking> all;
  all.reserve(waiting_.size() + too_large_.size());
  for (const auto* layouts : {&waiting_, &too_large_}) {
    for (const Bounded& layout : *layouts) {
      if (layout.legal) all.push_back({layout.number, lacks_at_least(layout)});
    }
  }
  if (!bounds_) {
    std::vector<Lacking> some;
    const std::size_t step = std::max<std::size_t>(1, all.size() / most);
    for (std::size_t i = 0; i < all.size(); i += step) some.push_back(all[i]);
    return some;
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Lacking& a, const Lacking& b) { return a.at_least < b.at_least; });
  constexpr std::size_t kNearest = 4;
  all.resize(std::min({all.size(), most, kNearest}));
  return all;
}

}  // namespace steelyard::search
