#include "search/front.h"

#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <vector>

#include "search/ordered_layouts.h"

namespace steelyard::search {

namespace {

using facts::FoundLayout;
using facts::SearchedPlace;

constexpr double kUnknown = 1e300;  // worse than any

double step_of(const FoundLayout& layout) {
  return layout.plan.pace.step ? layout.plan.pace.step->value() : kUnknown;
}

double gpus_of(const FoundLayout& layout) {
  const facts::MachineKeys& machine = layout.plan.job.machine;
  return static_cast<double>(machine.nodes * machine.gpus.value_or(1));
}

double score(const FoundLayout& layout, facts::SearchGoal goal) {
  switch (goal) {
    case facts::SearchGoal::step: return step_of(layout);
    case facts::SearchGoal::cost: return layout.cost_per_step.value_or(kUnknown);
    case facts::SearchGoal::gpus: return gpus_of(layout);
    case facts::SearchGoal::energy: return layout.joules_per_step.value_or(kUnknown);
  }
  return step_of(layout);
}

// At least as good in everything and better in something. An unknown price is worse than any, one
// in another currency is neither better nor worse.
bool dominates(const FoundLayout& a, const FoundLayout& b) {
  const bool two_currencies =
      a.cost_per_step && b.cost_per_step && a.plan.cost->currency != b.plan.cost->currency;
  if (two_currencies) return false;
  const auto figures = [](const FoundLayout& layout) {
    const auto nodes = static_cast<double>(layout.plan.job.machine.nodes);
    return std::array{step_of(layout), score(layout, facts::SearchGoal::cost), gpus_of(layout),
                      nodes * static_cast<double>(whole_gib(layout.plan.ram.peak))};
  };
  const auto of_a = figures(a), of_b = figures(b);
  bool better = false;
  for (std::size_t i = 0; i < of_a.size(); ++i) {
    if (of_a[i] > of_b[i]) return false;
    better = better || of_a[i] < of_b[i];
  }
  return better;
}

void mark_front(std::vector<SearchedPlace>& places) {
  std::vector<FoundLayout*> all;
  for (SearchedPlace& place : places) {
    for (FoundLayout& layout : place.found) all.push_back(&layout);
  }
  for (FoundLayout* layout : all) {
    layout->on_front = std::none_of(all.begin(), all.end(), [&](const FoundLayout* other) {
      return other != layout && dominates(*other, *layout);
    });
  }
}

// Nothing found last, before it what has no step; then, of prices, one currency after the other.
std::tuple<int, std::string, double, double> order_of(const SearchedPlace& place,
                                                      facts::SearchGoal goal) {
  if (place.found.empty()) return {2, {}, 0.0, 0.0};
  const FoundLayout& best = place.found.front();
  const bool priced = goal == facts::SearchGoal::cost && best.cost_per_step;
  // "~" is behind all letters: places without a price.
  const std::string currency = priced ? best.plan.cost->currency : "~";
  return {best.plan.pace.step ? 0 : 1, currency, score(best, goal), step_of(best)};
}

}  // namespace

void rank(facts::SearchResult& result) {
  mark_front(result.places);
  std::sort(result.currencies.begin(), result.currencies.end());
  result.currencies.erase(std::unique(result.currencies.begin(), result.currencies.end()),
                          result.currencies.end());
  std::stable_sort(result.places.begin(), result.places.end(),
                   [&](const SearchedPlace& a, const SearchedPlace& b) {
                     return order_of(a, result.goal) < order_of(b, result.goal);
                   });
}

}  // namespace steelyard::search
