#include "validate/outside.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace steelyard::validate {
namespace {

bool speaks_of(const facts::CaseNote& note, const facts::Comparison& figure) {
  const auto is_it = [&](const std::string& name) { return matches(name, figure.quantity); };
  if (!note.quantities.empty() &&
      std::none_of(note.quantities.begin(), note.quantities.end(), is_it)) {
    return false;
  }
  return std::any_of(note.cases.begin(), note.cases.end(),
                     [&](const std::string& pattern) { return matches(pattern, figure.id); });
}

std::string reason_of(const facts::Comparison& figure, std::span<const facts::CaseNote> notes) {
  for (const facts::CaseNote& note : notes) {
    if (speaks_of(note, figure)) return note.reason;
  }
  return {};
}

void add(facts::Outside& group, const facts::Comparison& figure) {
  ++group.figures;
  if (std::abs(figure.error.value()) > std::abs(group.worst.value())) group.worst = figure.error;
  if (std::find(group.cases.begin(), group.cases.end(), figure.id) == group.cases.end()) {
    group.cases.push_back(figure.id);
  }
}

}  // namespace

Ratio bound_of(facts::QuantityGroup group, std::string_view confidence) {
  if (group != facts::QuantityGroup::vram) return Ratio(0.20);
  return Ratio(confidence == "high" ? 0.08 : 0.15);
}

bool matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resumed = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resumed = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {  // the star takes one character more
      p = star + 1;
      t = ++resumed;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

std::vector<facts::Outside> outside(const facts::Validation& validation,
                                    std::span<const facts::CaseNote> notes) {
  std::map<std::pair<facts::QuantityGroup, std::string>, facts::Outside> groups;
  for (const facts::Comparison& figure : validation.cases) {
    if (!figure.impossible.empty() ||
        std::abs(figure.error.value()) <= bound_of(figure.group, figure.confidence).value()) {
      continue;
    }
    const std::string reason = reason_of(figure, notes);
    facts::Outside& group = groups[{figure.group, reason}];
    group.group = figure.group;
    group.reason = reason;
    add(group, figure);
  }
  std::vector<facts::Outside> result;
  for (auto& [key, group] : groups) result.push_back(std::move(group));
  std::stable_sort(result.begin(), result.end(), [](const auto& a, const auto& b) {
    if (a.group != b.group) return a.group < b.group;
    if (a.reason.empty() != b.reason.empty()) return b.reason.empty();
    return a.figures > b.figures;
  });
  return result;
}

}  // namespace steelyard::validate
