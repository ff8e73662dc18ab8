#include "base/suggest.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace steelyard {
namespace {

// Longer names are no misspellings of anything here; the limit keeps hostile input cheap.
constexpr std::size_t kLongestCompared = 256;

// Edit distance with swaps of neighbours (optimal string alignment; Damerau 1964). Three rows of
// the table suffice: the current one and the two above it.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitution = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, substitution});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

bool share_a_character(std::string_view a, std::string_view b) {
  return a.find_first_of(b) != std::string_view::npos;
}

}  // namespace

std::optional<std::string> nearest_name(std::string_view misspelt,
                                        std::span<const std::string> known) {
  if (misspelt.size() > kLongestCompared) return std::nullopt;
  const std::string* best = nullptr;
  std::size_t best_distance = 0;
  for (const std::string& name : known) {
    if (name.size() > kLongestCompared || !share_a_character(misspelt, name)) continue;
    const std::size_t distance = edit_distance(misspelt, name);
    if (distance * 3 > std::max(misspelt.size(), name.size())) continue;
    if (best == nullptr || distance < best_distance) {
      best = &name;
      best_distance = distance;
    }
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

std::string listed(std::span<const std::string> names, std::size_t most) {
  if (names.empty()) return "";
  const bool cut = names.size() > most;
  const std::size_t shown = cut ? most : names.size();
  std::string text;
  for (std::size_t i = 0; i < shown; ++i) {
    if (i > 0) text += !cut && i + 1 == shown ? " or " : ", ";
    text += names[i];
  }
  if (cut) text += fmt::format("{}... ({} in all)", shown > 0 ? ", " : "", names.size());
  return text;
}

}  // namespace steelyard
