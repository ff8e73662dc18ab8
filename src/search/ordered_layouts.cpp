#include "search/ordered_layouts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "search/words.h"

namespace steelyard::search {

namespace {

// Planned at once, however many cores and processes there are: what is planned besides what was
// needed does not depend on them. Few at first: tight bounds need few plans.
constexpr std::size_t kLeastBatch = 8, kMostBatch = 64;  // of layouts that are not alike
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

// The next layout, which is written over `layout.job`. `alike`: it differs from that on the host
// alone.
OrderedLayouts::Bounded OrderedLayouts::bounded(std::int64_t number, bool alike,
                                                Layout& layout) const {
  if (!alike) {
    layout.legal = space_.apply(number, layout.job);
    layout.bound.reset();
  }
  const bool refused = alike && layout.bound && layout.bound->refused;
  if (layout.legal && bounds_ && !refused) {
    if (alike) space_.apply_on_the_host(number, layout.job);
    layout.bound = bounds_(layout.job, alike && layout.bound ? &*layout.bound : nullptr);
  }
  Bounded one;
  one.number = number;
  one.legal = layout.legal;
  if (!layout.bound) return one;
  one.refused = layout.bound->refused;
  one.step = layout.bound->step.value() * kSurely;
  one.ram_gib = whole_gib(layout.bound->ram);
  one.vram = layout.bound->vram.value();
  return one;
}

void OrderedLayouts::bound(const Tick& tick) {
  constexpr std::size_t kRound = 64;  // blocks
  const std::int64_t size = space_.size();
  const std::int64_t on_the_host = std::max<std::int64_t>(1, size / on_gpus_);
  // Alike ones one behind the other: what is known of the first is at hand for the others.
  for (std::int64_t begin = 0; begin < size;) {
    const std::int64_t end = std::min(size, begin + static_cast<std::int64_t>(kRound) * kBlock);
    const auto count = static_cast<std::size_t>(ceil_divide(end - begin, kBlock));
    using Block = std::array<Bounded, kBlock>;
    const auto blocks = made_by_all<Block>(crew_, count, [&](std::size_t at) {
      Block block;
      Layout layout{.job = space_.job(), .legal = false, .bound = {}};
      const std::int64_t first = begin + static_cast<std::int64_t>(at) * kBlock;
      for (std::int64_t i = first; i < std::min(end, first + kBlock); ++i) {
        block[static_cast<std::size_t>(i - first)] =
            bounded(i / on_the_host + i % on_the_host * on_gpus_, i > first && i % on_the_host != 0,
                    layout);
      }
      return block;
    });
    const std::size_t waited = waiting_.size();
    for (std::int64_t i = begin; i < end; ++i) {
      settle(blocks[static_cast<std::size_t>((i - begin) / kBlock)]
                   [static_cast<std::size_t>((i - begin) % kBlock)]);
    }
    const auto waits = static_cast<std::int64_t>(waiting_.size() - waited);
    const std::int64_t settled = end - begin - waits;
    begin = end;
    if (!tick(settled)) break;
  }
  const auto order = [this](const Bounded& a, const Bounded& b) {
    return std::tuple(a.step, gpus_part(a.number), a.number) <
           std::tuple(b.step, gpus_part(b.number), b.number);
  };
  std::sort(waiting_.begin(), waiting_.end(), order);
  std::sort(too_large_.begin(), too_large_.end(), order);
}

// What its bound already says of it, or nothing yet.
void OrderedLayouts::settle(const Bounded& layout) {
  if (!layout.legal) return;
  if (layout.refused) {
    refuse(layout.number);
    return;
  }
  const bool no_ram = room_.ram && layout.ram_gib > whole_gib(*room_.ram);
  const bool no_vram = room_.vram && layout.vram > room_.vram->value();
  if (no_ram || no_vram) {
    ++legal_;
    ++ruled_out_;
    too_large_.push_back(layout);
  } else {
    waiting_.push_back(layout);
  }
}

void OrderedLayouts::refuse(std::int64_t number) {
  ++refused_;
  if (first_refused_ < 0 || number < first_refused_) first_refused_ = number;
}

OrderedLayouts::Planned OrderedLayouts::read(const Result<facts::Plan>& plan) const {
  Planned result;
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

OrderedLayouts::PlannedAlike OrderedLayouts::planned(const Alike& alike) const {
  std::vector<facts::Job> jobs;
  for (std::size_t i = 0; i < alike.count; ++i) {
    jobs.push_back(space_.job());
    static_cast<void>(space_.apply(waiting_[alike.places[i]].number, jobs.back()));
  }
  PlannedAlike all;
  if (siblings_ && jobs.size() > 1) {
    const std::vector<Result<facts::Plan>> plans = siblings_(jobs);
    for (std::size_t i = 0; i < alike.count; ++i) all[i] = read(plans[i]);
  } else {
    for (std::size_t i = 0; i < alike.count; ++i) {
      all[i] = read(planner_(jobs[i], Depth::without_vram));
    }
  }
  return all;
}

std::vector<OrderedLayouts::Alike> OrderedLayouts::next_batch(std::int64_t& settled) {
  std::vector<Alike> batch;
  for (; next_ < waiting_.size(); ++next_) {
    const Bounded& layout = waiting_[next_];
    if (!can_win(layout)) {
      ++ruled_out_;
      ++legal_;
      ++settled;
      continue;
    }
    const bool joins =
        !batch.empty() && batch.back().count < kMostAlike &&
        gpus_part(waiting_[batch.back().places[0]].number) == gpus_part(layout.number);
    if (!joins && batch.size() == batch_) break;
    if (!joins) batch.emplace_back();
    batch.back().places[batch.back().count++] = next_;
  }
  return batch;
}

void OrderedLayouts::take(std::size_t place, const Planned& planned) {
  Bounded& layout = waiting_[place];
  if (planned.refused) {
    layout.legal = false;
    refuse(layout.number);
    return;
  }
  ++legal_;
  if (!planned.counts) return;
  bounds_fail_ = bounds_fail_ || planned.step < layout.step || planned.ram_gib < layout.ram_gib;
  ready_.emplace(planned.step, planned.ram_gib, layout.number);
}

bool OrderedLayouts::plan_some(const Tick& tick) {
  std::int64_t settled = 0;
  batch_ = std::clamp(2 * batch_, kLeastBatch, kMostBatch);
  const std::vector<Alike> batch = next_batch(settled);
  const auto made = made_by_all<PlannedAlike>(crew_, batch.size(),
                                              [&](std::size_t i) { return planned(batch[i]); });
  for (std::size_t i = 0; i < batch.size(); ++i) {
    for (std::size_t k = 0; k < batch[i].count; ++k) take(batch[i].places[k], made[i][k]);
    settled += static_cast<std::int64_t>(batch[i].count);
  }
  return tick(settled);
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
  std::set<std::int64_t> met;  // of layouts that are one on the GPUs, the one that lacks least
  std::erase_if(all, [&](const Lacking& one) { return !met.insert(gpus_part(one.number)).second; });
  constexpr std::size_t kNearest = 4;
  all.resize(std::min({all.size(), most, kNearest}));
  return all;
}

}  // namespace steelyard::search
