// Balance, step and data path of the plan's page.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/format.h"
#include "base/text.h"
#include "report/bar.h"
#include "report/plan_sections.h"
#include "report/steelyard_drawing.h"

namespace steelyard::report {
namespace {

using facts::name_of;

std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (const std::string& part : parts) {
    if (!text.empty()) text += separator;
    text += part;
  }
  return text;
}

// "vram_short" as a person writes it: "VRAM short".
std::string verdict_words(facts::BalanceVerdict verdict) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kShort = {
      {{"vram", "VRAM"}, {"ram", "RAM"}, {"cpu", "CPU"}}};
  std::string words;
  std::string_view rest = name_of(verdict);
  while (!rest.empty()) {
    const std::string_view word = rest.substr(0, rest.find('_'));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    const auto* const found = std::find_if(kShort.begin(), kShort.end(),
                                           [&](const auto& pair) { return pair.first == word; });
    words += (words.empty() ? "" : " ") + std::string(found == kShort.end() ? word : found->second);
  }
  return words;
}

std::string rule_words(const facts::BalancePlan& balance) {
  return fmt::format("RAM : VRAM by rule of thumb {} to {}{} ({} tier{})",
                     ratio_text(balance.rule_low), ratio_text(balance.rule_high),
                     balance.rule_open_ended ? " and more" : "", name_of(balance.tier),
                     balance.data_heavy ? ", data-heavy" : "");
}

Bar breakdown_bar(const facts::PaceBreakdown& breakdown) {
  Bar bar;
  const auto add = [&](char letter, const char* name, Seconds seconds, Ink ink) {
    bar.parts.push_back({.letter = letter,
                         .name = name,
                         .size = to_text(seconds),
                         .amount = seconds.value(),
                         .ink = ink});
  };
  add('C', "compute", breakdown.compute, Ink::green);
  add('M', "memory bound", breakdown.memory_bound, Ink::blue);
  add('X', "exposed communication", breakdown.exposed_communication, Ink::magenta);
  add('U', "pipeline bubble", breakdown.bubble, Ink::yellow);
  add('O', "optimizer", breakdown.optimizer, Ink::cyan);
  add('L', "offload", breakdown.offload, Ink::yellow);
  add('D', "waiting for data", breakdown.data_stall, Ink::magenta);
  add('K', "checkpoint", breakdown.checkpoint, Ink::blue);
  return bar;
}

// "6,210" of "6,210 tokens/s".
std::string number_of(TokensPerSecond rate) {
  const std::string text = to_text(rate);
  return text.substr(0, text.find(' '));
}

std::vector<std::string> pace_words(const facts::PacePlan& pace) {
  std::vector<std::string> words = {to_text(*pace.step)};
  if (pace.tokens) {
    std::string tokens = to_text(*pace.tokens);
    if (pace.tokens_per_gpu)
      tokens += fmt::format(" ({} per GPU)", number_of(*pace.tokens_per_gpu));
    words.push_back(std::move(tokens));
  }
  if (!pace.tokens && pace.samples) words.push_back(to_text(*pace.samples));
  if (pace.mfu) words.push_back("MFU " + percent(*pace.mfu));
  if (pace.hfu && pace.hfu != pace.mfu) words.push_back("HFU " + percent(*pace.hfu));
  return words;
}

// Where every GPU's data comes through, stage by stage, broken into lines between stages.
Lines path_lines(const facts::FeedPlan& feed, std::size_t width, const Paint& paint) {
  Lines lines;
  for (const facts::FeedStage& stage : feed.stages) {
    std::string words = paint.outside(stage.name) + " " +
                        (stage.can ? compact(stage.can->value()) : std::string("unknown"));
    if (&stage == &feed.stages.back()) words += " samples/s";
    const std::string arrow = lines.empty() ? "" : std::string(paint.signs().arrow);
    if (lines.empty() ||
        display_width(lines.back()) + display_width(arrow) + display_width(words) > width) {
      lines.push_back(std::move(words));
    } else {
      lines.back() += arrow + words;
    }
  }
  return lines;
}

std::string wait_words(const facts::FeedPlan& feed, const Paint& paint) {
  if (!feed.gpu_wait_fraction) return "whether GPUs wait for data is unknown";
  if (feed.gpu_wait_fraction->value() <= 0.0) return "GPUs never wait for data";
  std::string words =
      fmt::format("GPUs wait for data {} of the time", percent(*feed.gpu_wait_fraction));
  if (!feed.limited_by.empty()) words += ": limited by " + paint.outside(feed.limited_by);
  return words;
}

}  // namespace

Lines balance_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  const facts::BalancePlan& balance = plan.balance;
  std::vector<std::string> verdicts;
  for (const facts::BalanceVerdict verdict : balance.verdicts) {
    verdicts.push_back(paint.ink(verdict_words(verdict), Ink::strong));
  }
  std::vector<std::string> head;
  if (!verdicts.empty()) head.push_back(joined(verdicts, ", "));
  if (!balance.ratio_needed) head.emplace_back("RAM : VRAM needed unknown");
  if (!balance.ratio_installed) head.emplace_back("RAM : VRAM installed unknown");
  head.push_back(rule_words(balance));
  Lines lines = flowed(head, width, paint);
  const Lines drawing = steelyard_lines(balance, width, paint);
  lines.insert(lines.end(), drawing.begin(), drawing.end());
  for (const std::string& sentence : balance.sentences) {
    const Lines wrap = wrapped(sentence_of(sentence, paint), width);
    lines.insert(lines.end(), wrap.begin(), wrap.end());
  }
  return lines;
}

Lines step_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  const facts::PacePlan& pace = plan.pace;
  if (!pace.step) {
    std::vector<std::string> missing;
    for (const std::string& what : pace.missing) missing.push_back(paint.outside(what));
    return wrapped(
        missing.empty() ? "unknown" : fmt::format("unknown (not known: {})", joined(missing, ", ")),
        width);
  }
  Lines lines = flowed(pace_words(pace), width, paint);
  const Bar bar = breakdown_bar(pace.breakdown);
  for (const Lines& part : {bar_lines(bar, width, paint), legend_lines(bar, width, paint)}) {
    lines.insert(lines.end(), part.begin(), part.end());
  }
  return lines;
}

Lines data_lines(const facts::Plan& plan, std::size_t width, const Paint& paint) {
  const facts::FeedPlan& feed = plan.feed;
  std::vector<std::string> words = {wait_words(feed, paint)};
  for (const facts::FeedStage& stage : feed.stages) {
    if (!stage.needed) continue;
    words.push_back("needed " + to_text(*stage.needed));
    break;  // the same of every stage
  }
  Lines lines = flowed(words, width, paint);
  const Lines path = path_lines(feed, width, paint);
  lines.insert(lines.end(), path.begin(), path.end());
  return lines;
}

}  // namespace steelyard::report
