// The two memories of the plan's page: VRAM of the fullest GPU, RAM of a node.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/format.h"
#include "base/text.h"
#include "report/bar.h"
#include "report/plan_sections.h"

namespace steelyard::report {
namespace {

struct Look {
  char letter;
  Ink ink;
};

// Indexed by VramCategory.
constexpr std::array<Look, facts::kVramCategories> kVramLooks = {{{'P', Ink::blue},
                                                                  {'G', Ink::green},
                                                                  {'O', Ink::yellow},
                                                                  {'A', Ink::magenta},
                                                                  {'T', Ink::cyan},
                                                                  {'C', Ink::blue},
                                                                  {'B', Ink::green},
                                                                  {'F', Ink::yellow},
                                                                  {'R', Ink::magenta}}};

// Indexed by RamCategory.
constexpr std::array<Look, facts::kRamCategories> kRamLooks = {{{'S', Ink::cyan},
                                                                {'F', Ink::magenta},
                                                                {'L', Ink::yellow},
                                                                {'P', Ink::blue},
                                                                {'G', Ink::green},
                                                                {'O', Ink::yellow},
                                                                {'A', Ink::magenta},
                                                                {'N', Ink::cyan},
                                                                {'W', Ink::blue},
                                                                {'Q', Ink::green},
                                                                {'D', Ink::yellow},
                                                                {'E', Ink::magenta},
                                                                {'M', Ink::cyan},
                                                                {'K', Ink::blue},
                                                                {'C', Ink::green}}};

std::string in_words(std::string_view name) {
  std::string words(name);
  std::replace(words.begin(), words.end(), '_', ' ');
  return words;
}

template <class Category, std::size_t N>
Bar bar_of(const facts::BytesBy<Category, N>& bytes, const std::array<Look, N>& looks,
           const facts::Known<Bytes>& capacity) {
  Bar bar;
  for (std::size_t i = 0; i < N; ++i) {
    bar.parts.push_back({.letter = looks[i].letter,
                         .name = in_words(facts::EnumNames<Category>::values[i]),
                         .size = to_text(bytes.bytes[i]),
                         .amount = bytes.bytes[i].real(),
                         .ink = looks[i].ink});
  }
  if (capacity) {
    bar.limit = capacity->real();
    bar.limit_text = to_text(*capacity);
  }
  return bar;
}

std::string_view when(facts::RamPhase phase) {
  switch (phase) {
    case facts::RamPhase::startup: return "at start-up";
    case facts::RamPhase::load: return "while loading";
    case facts::RamPhase::steady: return "while training";
    case facts::RamPhase::checkpoint: return "at a checkpoint";
  }
  return "";
}

std::string peak_words(const facts::PeakAt& at, const Paint& paint) {
  std::string words = "peak in " + paint.outside(at.phase);
  if (!at.layer.empty()) words += ", " + paint.outside(at.layer);
  if (!at.operation.empty()) words += ", " + paint.outside(at.operation);
  return words;
}

void append(Lines& to, const Lines& more) {
  to.insert(to.end(), more.begin(), more.end());
}

// Beside what the allocator has reserved; "" where nothing is known of it.
std::string beside_words(const facts::RankMemory& rank) {
  std::vector<std::string> parts;
  if (rank.context > Bytes()) parts.push_back(to_text(rank.context) + " context");
  if (rank.collectives > Bytes()) {
    parts.push_back(fmt::format("{} of {} communicator{}", to_text(rank.collectives),
                                rank.communicators, rank.communicators == 1 ? "" : "s"));
  }
  if (parts.empty()) return "";
  return fmt::format("{} outside of the allocator", fmt::join(parts, " and "));
}

// "stage 3" of "pipeline stage 3 of 16".
std::string short_kind(const std::string& kind) {
  constexpr std::string_view kStage = "pipeline ";
  if (!kind.starts_with(kStage)) return kind;
  return kind.substr(kStage.size(), kind.find(" of ") - kStage.size());
}

// What each kind of rank has, where they differ.
std::string kinds_words(const std::vector<facts::RankMemory>& ranks) {
  std::vector<std::string> kinds;
  for (const facts::RankMemory& rank : ranks) {
    kinds.push_back(short_kind(rank.kind) + " " + to_text(rank.peak_device_used));
  }
  return fmt::format("{}", fmt::join(kinds, ", "));
}

}  // namespace

Lines rank_lines(const facts::RankMemory& rank, const facts::Known<Bytes>& capacity,
                 const std::vector<std::string>& more, std::size_t width, const Paint& paint) {
  std::vector<std::string> words = {
      fmt::format("allocated {}, reserved {}, device used {}", to_text(rank.peak_allocated),
                  to_text(rank.peak_reserved), to_text(rank.peak_device_used)),
      peak_words(rank.peak_at, paint)};
  if (const std::string beside = beside_words(rank); !beside.empty()) words.push_back(beside);
  words.insert(words.end(), more.begin(), more.end());
  Lines lines = flowed(words, width, paint);
  const Bar bar = bar_of(rank.by_category, kVramLooks, capacity);
  append(lines, bar_lines(bar, width, paint));
  append(lines, legend_lines(bar, width, paint));
  return lines;
}

Lines vram_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  const facts::RankMemory& rank = plan.vram.fullest;
  std::vector<std::string> more;
  if (plan.vram.ranks.size() > 1) {
    more.push_back("fullest: " + paint.outside(rank.kind));
    more.push_back(kinds_words(plan.vram.ranks));
  }
  return rank_lines(rank, plan.vram.capacity, more, width, paint);
}

Lines ram_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  std::string phases;
  for (std::size_t i = 0; i < facts::kRamPhases; ++i) {
    phases +=
        fmt::format("{}{} {}", i == 0 ? "" : ", ", facts::EnumNames<facts::RamPhase>::values[i],
                    to_text(plan.ram.phases[i].total()));
  }
  std::vector<std::string> words = {phases, fmt::format("fullest {}", when(plan.ram.peak_phase))};
  if (plan.ram.page_cache_wanted > Bytes(0)) {
    words.push_back(
        fmt::format("{} more would serve as page cache", to_text(plan.ram.page_cache_wanted)));
  }
  Lines lines = flowed(words, width, paint);
  const Bar bar = bar_of(plan.ram.phases[static_cast<std::size_t>(plan.ram.peak_phase)], kRamLooks,
                         plan.ram.capacity);
  append(lines, bar_lines(bar, width, paint));
  append(lines, legend_lines(bar, width, paint));
  return lines;
}

}  // namespace steelyard::report
