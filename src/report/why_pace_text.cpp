// The page of `steelyard why JOB pace`.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/text.h"
#include "report/page.h"
#include "report/plan_sections.h"
#include "report/report.h"

namespace steelyard::report {
namespace {

constexpr std::size_t kIndent = 18;  // of what stands right of seconds and share

std::string time_and_share(Seconds seconds, Seconds step) {
  return padded(to_text(seconds), 9, Align::right) +
         padded(percent(seconds / step), 7, Align::right) + "  ";
}

std::string bound_words(facts::PaceBound bound) {
  std::string words(facts::name_of(bound));
  std::replace(words.begin(), words.end(), '_', ' ');
  return words;
}

// "64 kernels of the backward pass", "hidden: 12 ms in all"
std::vector<std::string> row_words(const facts::PaceRow& row) {
  std::vector<std::string> words;
  if (!row.phase.empty()) words.push_back(row.phase);
  if (row.recomputed) words.emplace_back("recomputed");
  if (row.count > 0) words.push_back(grouped(row.count) + (row.count == 1 ? " run" : " runs"));
  words.push_back("bound by " + bound_words(row.bound));
  if (row.busy > row.step) words.push_back(to_text(row.busy - row.step) + " hidden");
  return words;
}

Lines row_lines(const facts::PaceWhy& why, std::size_t most, std::size_t width,
                const Paint& paint) {
  const Seconds step = *why.pace.step;
  const std::size_t room = std::max<std::size_t>(width, kIndent + 20) - kIndent;
  Lines lines;
  const std::size_t shown = std::min(most, why.rows.size());
  for (std::size_t i = 0; i < shown; ++i) {
    const facts::PaceRow& row = why.rows[i];
    std::string name = paint.outside(row.operation);
    if (!row.layer.empty()) name += " of " + paint.outside(row.layer);
    lines.push_back(time_and_share(row.step, step) + paint.ink(shortened(name, room), Ink::strong));
    for (const std::string& line : flowed(row_words(row), room, paint)) {
      lines.push_back(std::string(kIndent, ' ') + line);
    }
  }
  Seconds rest;
  for (std::size_t i = shown; i < why.rows.size(); ++i) rest += why.rows[i].step;
  const std::size_t more = why.rows.size() - shown;
  if (more > 0) {
    lines.push_back(time_and_share(rest, step) +
                    fmt::format("{} smaller row{}", more, more == 1 ? "" : "s"));
  }
  return lines;
}

Lines help_lines(const facts::PaceWhy& why, std::size_t width, const Paint& paint) {
  Lines lines;
  for (const facts::PaceHelp& help : why.helps) {
    const std::string words =
        paint.outside(help.what) + fmt::format(": at most {}", to_text(help.at_most));
    for (const std::string& line : wrapped(words, width)) lines.push_back(line);
  }
  return lines;
}

Lines assumption_lines(const facts::PaceWhy& why, std::size_t width, const Paint& paint) {
  Lines lines;
  for (const std::string& sentence : why.pace.assumptions) {
    for (const std::string& line : wrapped(paint.outside(sentence), width)) lines.push_back(line);
  }
  return lines;
}

}  // namespace

std::string why_pace_text(const facts::PaceWhy& why, const Style& style, std::size_t most) {
  const Paint paint(style);
  Page page(paint);
  const std::string title =
      paint.ink(paint.outside(why.job), Ink::strong) + ": what a step of the busiest GPU waits for";
  for (const std::string& line : wrapped(title, paint.columns())) page.line(line);
  page.blank();
  facts::Plan plan;
  plan.pace = why.pace;
  page.section("Step", step_lines(plan, page.width(), paint));
  if (!why.pace.step) return page.text();
  page.blank();
  page.section("Work", row_lines(why, most, page.width(), paint));
  if (!why.helps.empty()) {
    page.blank();
    page.section("Helps", help_lines(why, page.width(), paint));
  }
  if (!why.pace.assumptions.empty()) {
    page.blank();
    page.section("Assumes", assumption_lines(why, page.width(), paint));
  }
  return page.text();
}

}  // namespace steelyard::report
