// The pages of `steelyard why JOB ram` and `steelyard why JOB feed`.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/text.h"
#include "report/page.h"
#include "report/plan_sections.h"
#include "report/report.h"

namespace steelyard::report {
namespace {

void title(Page& page, const facts::Plan& plan, const char* what, const Paint& paint) {
  const std::string words = paint.ink(paint.outside(plan.job.name), Ink::strong) + ": " + what;
  for (const std::string& line : wrapped(words, paint.columns())) page.line(line);
  page.blank();
}

// Names that the margin is too narrow for.
std::string_view margin_word(std::string_view name) {
  if (name == "host-to-device") return "copy";
  if (name == "assemble") return "collate";
  return name == "checkpoint" ? "save" : name;
}

std::string words_of(std::string_view name) {
  std::string words(name);
  std::ranges::replace(words, '_', ' ');
  return words;
}

// The categories of one phase, largest first, each with its share.
Lines phase_lines(const facts::RamBytes& bytes) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < facts::kRamCategories; ++i) {
    if (bytes.bytes[i] > Bytes()) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return bytes.bytes[a] > bytes.bytes[b]; });
  const Bytes total = bytes.total();
  Lines lines = {to_text(total)};
  for (const std::size_t i : order) {
    const Bytes part = bytes.bytes[i];
    lines.push_back(padded(to_text(part), 9, Align::right) +
                    padded(percent(part / total), 7, Align::right) + "  " +
                    words_of(facts::EnumNames<facts::RamCategory>::values[i]));
  }
  return lines;
}

// "loader_workers: 8 ranks x ..." as people write it.
std::string in_words(std::string sentence) {
  const auto end =
      sentence.begin() + static_cast<std::ptrdiff_t>(std::min(sentence.find(':'), sentence.size()));
  std::replace(sentence.begin(), end, '_', ' ');
  return sentence;
}

// Each rule, and under it how it is known and whose it is.
Lines rule_lines(const std::vector<facts::RamRule>& rules, std::size_t width, const Paint& paint) {
  constexpr std::size_t kIndent = 2;
  Lines lines;
  for (const facts::RamRule& rule : rules) {
    for (std::string& line : wrapped(sentence_of(in_words(rule.sentence), paint), width)) {
      lines.push_back(std::move(line));
    }
    std::string origin(name_of(rule.from));
    if (!rule.source.empty()) origin += ": " + paint.outside(rule.source);
    for (const std::string& line : wrapped(origin, width - kIndent)) {
      lines.push_back(std::string(kIndent, ' ') + paint.ink(line, Ink::quiet));
    }
  }
  return lines;
}

std::string rate_text(const std::optional<SamplesPerSecond>& rate) {
  return rate ? to_text(*rate) : std::string("-");
}

Lines flow_lines(const facts::FeedFlow& flow) {
  Lines lines;
  lines.push_back(flow.supply ? "gives " + to_text(*flow.supply) : std::string("unknown"));
  if (!flow.gpu_wait_fraction) return lines;
  std::string words =
      fmt::format("the GPUs compute {} of the time and wait {}",
                  percent(*flow.accelerator_utilization), percent(*flow.gpu_wait_fraction));
  if (!flow.limited_by.empty()) words += ", limited by " + flow.limited_by;
  lines.push_back(std::move(words));
  return lines;
}

Lines loader_lines(const facts::Plan& plan) {
  const facts::FeedPlan& feed = plan.feed;
  Lines lines;
  lines.push_back(fmt::format("{} per GPU, {} batches ahead of each",
                              plan.job.data.workers.value_or(0), plan.job.data.prefetch));
  if (feed.stages.front().needed && plan.job.data.workers.value_or(0) > 0) {
    lines.push_back(feed.workers_enough ? fmt::format("enough: {} per GPU", *feed.workers_enough)
                                        : std::string("no number of workers is enough"));
  }
  if (feed.prefetch_enough) {
    lines.push_back(fmt::format("enough ahead: {} per worker", *feed.prefetch_enough));
  }
  if (feed.spread_loss && *feed.spread_loss > Ratio(0.0)) {
    lines.push_back("samples that differ in size cost " + percent(*feed.spread_loss));
  }
  return lines;
}

}  // namespace

std::string why_ram_text(const facts::Plan& plan, const Style& style) {
  const Paint paint(style);
  Page page(paint);
  title(page, plan, "what fills the memory of a host, phase by phase", paint);
  page.section("RAM", ram_lines(plan, page.width(), paint));
  for (std::size_t i = 0; i < facts::kRamPhases; ++i) {
    page.blank();
    page.section(margin_word(facts::EnumNames<facts::RamPhase>::values[i]),
                 phase_lines(plan.ram.phases[i]));
  }
  page.blank();
  page.section("Rules", rule_lines(plan.ram.rules, page.width(), paint));
  const Lines binding = numa_details(plan, page.width(), paint);
  if (!binding.empty()) {
    page.blank();
    page.section("NUMA", binding);
  }
  return page.text();
}

std::string why_feed_text(const facts::Plan& plan, const Style& style) {
  const Paint paint(style);
  Page page(paint);
  title(page, plan, "how fast samples reach the GPUs of a host", paint);
  page.section("Epoch 1", flow_lines(plan.feed.first_epoch));
  page.section("Later", flow_lines(plan.feed));
  page.blank();
  for (const facts::FeedStage& stage : plan.feed.stages) {
    Lines lines = {fmt::format("{} in epoch 1, {} later, {} of RAM", rate_text(stage.can_at_first),
                               rate_text(stage.can), to_text(stage.ram))};
    const Lines note = wrapped(sentence_of(stage.note, paint), page.width());
    lines.insert(lines.end(), note.begin(), note.end());
    page.section(margin_word(stage.name), lines);
  }
  page.blank();
  page.section("Workers", loader_lines(plan));
  const Lines binding = numa_details(plan, page.width(), paint);
  if (!binding.empty()) {
    page.blank();
    page.section("NUMA", binding);
  }
  return page.text();
}

}  // namespace steelyard::report
