// How sure the plan is, what to change, and what else to know.
#include <fmt/format.h>

#include "base/format.h"
#include "base/text.h"
#include "report/plan_sections.h"

namespace steelyard::report {
namespace {

constexpr std::size_t kMostAdvice = 3;  // more stand in --json; the page stays one screen
constexpr std::size_t kMostWarnings = 3;

std::string confidence_words(std::string_view what, const facts::ConfidenceOf& confidence) {
  if (!confidence.median_absolute_error || confidence.cases == 0) {
    return fmt::format("{} extrapolated", what);
  }
  const std::string runs =
      fmt::format("{} similar run{}", grouped(confidence.cases), confidence.cases == 1 ? "" : "s");
  const std::string median = percent(*confidence.median_absolute_error);
  const std::string most = percent(confidence.p90_absolute_error.value_or(Ratio()));
  if (confidence.cases == 1 || median == most) {
    return fmt::format("{} off by {} on {}", what, median, runs);
  }
  return fmt::format("{} off by {} (9 of 10 at most {}) on {}", what, median, most, runs);
}

std::string effect_words(const facts::Plan& plan, const facts::Advice& advice, const Paint& paint) {
  std::string words =
      advice.fits ? paint.ink("fits", Ink::good) : paint.ink("still does not fit", Ink::bad);
  if (advice.cost_per_hour) {
    words += fmt::format(", {:.2f} {} per hour", *advice.cost_per_hour,
                         plan.cost ? plan.cost->currency : "");
  }
  return words;
}

std::string settings_words(const facts::Advice& advice, const Paint& paint) {
  std::string words;
  for (const auto& [key, value] : advice.set) {
    const bool bare = value.find_first_of(" \t{}[]\"'$`\\;&|<>()*?#~!") == std::string::npos;
    words += (words.empty() ? "" : " ") + (bare ? fmt::format("--set {}={}", key, value)
                                                : fmt::format("--set '{}={}'", key, value));
  }
  return paint.outside(words);
}

std::string and_more(std::size_t all, std::size_t shown) {
  return fmt::format("... and {} more: see --json", all - shown);
}

}  // namespace

Lines confidence_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  const std::int64_t near =
      plan.vram_confidence.cases + plan.ram_confidence.cases + plan.pace_confidence.cases;
  if (near == 0) {
    return wrapped(
        "Extrapolated: no measured case is near this job. Read every figure as an estimate.",
        width);
  }
  const std::vector<std::string> words = {confidence_words("VRAM", plan.vram_confidence),
                                          confidence_words("RAM", plan.ram_confidence),
                                          confidence_words("pace", plan.pace_confidence)};
  return flowed(words, width, paint);
}

Lines advice_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  constexpr std::size_t kIndent = 3;
  Lines lines;
  const auto& advice = plan.balance.advice;
  for (std::size_t i = 0; i < advice.size() && i < kMostAdvice; ++i) {
    std::vector<std::string> body =
        wrapped(sentence_of(advice[i].sentence, paint), width - kIndent);
    for (const std::string& line :
         flowed({effect_words(plan, advice[i], paint), settings_words(advice[i], paint)},
                width - kIndent, paint)) {
      body.push_back(line);
    }
    for (std::size_t l = 0; l < body.size(); ++l) {
      lines.push_back(padded(l == 0 ? fmt::format("{}", i + 1) : "", kIndent) + body[l]);
    }
  }
  if (advice.size() > kMostAdvice) lines.push_back(and_more(advice.size(), kMostAdvice));
  return lines;
}

Lines note_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  Lines lines;
  for (std::size_t i = 0; i < plan.warnings.size() && i < kMostWarnings; ++i) {
    const Lines wrap = wrapped(sentence_of(plan.warnings[i], paint), width);
    lines.insert(lines.end(), wrap.begin(), wrap.end());
  }
  if (plan.warnings.size() > kMostWarnings) {
    lines.push_back(and_more(plan.warnings.size(), kMostWarnings));
  }
  return lines;
}

}  // namespace steelyard::report
