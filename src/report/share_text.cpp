// `steelyard share` on a terminal.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/format.h"
#include "base/text.h"
#include "base/text_table.h"
#include "report/paint.h"
#include "report/share_report.h"

namespace steelyard::report {
namespace {

using facts::PlacedJob;
using facts::Seat;
using facts::SharedPart;
using facts::SharedResource;
using facts::SharePlan;
using facts::ShareVerdict;

// A, B, ... Z, then A1, B1 ...
std::string letter(std::size_t job) {
  constexpr std::size_t kLetters = 26;
  std::string text(1, static_cast<char>('A' + job % kLetters));
  return job < kLetters ? text : text + std::to_string(job / kLetters);
}

const char* verdict_words(ShareVerdict verdict) {
  switch (verdict) {
    case ShareVerdict::fits: return "FIT TOGETHER";
    case ShareVerdict::one_by_one: return "FIT ONLY IF NEVER TWO START OR SAVE AT THE SAME MOMENT";
    case ShareVerdict::refused: return "DO NOT FIT TOGETHER: one cannot run here";
    case ShareVerdict::vram_short: return "DO NOT FIT TOGETHER: VRAM short";
    case ShareVerdict::gpus_short: return "DO NOT FIT TOGETHER: GPUs short";
    case ShareVerdict::ram_short: return "DO NOT FIT TOGETHER: RAM short";
  }
  return "";
}

// "0-3", "0, 2".
std::string numbers(const std::vector<std::int64_t>& sorted) {
  std::string text;
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t end = i;
    while (end + 1 < sorted.size() && sorted[end + 1] == sorted[end] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += std::to_string(sorted[i]);
    if (end > i) text += (end == i + 1 ? ", " : "-") + std::to_string(sorted[end]);
    i = end + 1;
  }
  return text;
}

std::string amount(SharedResource resource, double value) {
  switch (resource) {
    case SharedResource::gpu: return percent(Ratio(value));
    case SharedResource::page_cache: return to_text(Bytes(checked_round(value)));
    case SharedResource::cores: return fmt::format("{:.0f}", value);
    case SharedResource::storage:
    case SharedResource::uplink: return to_text(BytesPerSecond(value));
  }
  return "";
}

const char* noun(SharedResource resource) {
  switch (resource) {
    case SharedResource::gpu: return "of a GPU";
    case SharedResource::page_cache: return "of page cache";
    case SharedResource::storage: return "from storage";
    case SharedResource::cores: return "cores";
    case SharedResource::uplink: return "of PCIe for each GPU";
  }
  return "";
}

std::string why(const PlacedJob& job) {
  std::string text;
  for (const SharedPart& part : job.parts) {
    constexpr double kSeen = 1.005;
    if (!text.empty()) text += "; ";
    text += fmt::format("{} {} instead of {}", amount(part.resource, part.given),
                        noun(part.resource), amount(part.resource, part.wanted));
    if (job.parts.size() > 1 && part.slower.value() > kSeen) {
      text += fmt::format(" ({:.2f} x)", part.slower.value());
    }
  }
  return text;
}

std::string seat_words(const PlacedJob& job) {
  if (job.on.empty()) return job.refused.empty() ? "to move" : "refused";
  const std::string gpus = numbers(job.on);
  if (job.seat == Seat::mig) return gpus + " MIG " + job.profile;
  return job.seat == Seat::time_slice ? gpus + " in turns" : gpus;
}

std::string slower_words(const PlacedJob& job) {
  if (!job.step_alone || !job.step_together) return "";
  const double times = *job.step_together / *job.step_alone == Ratio()
                           ? 1.0
                           : (*job.step_together / *job.step_alone).value();
  return times <= 1.0 ? "no loss" : fmt::format("{:.2f} x", times);
}

std::string job_name(const PlacedJob& job, const Paint& paint) {
  const std::string name = paint.outside(job.name);
  return job.copies > 1 ? fmt::format("{} ({} of {})", name, job.copy, job.copies) : name;
}

std::string jobs_text(const SharePlan& plan, const Paint& paint, const Style& style) {
  TextTable table({{""},
                   {"job"},
                   {"GPUs"},
                   {"VRAM per GPU", Align::right},
                   {"RAM", Align::right},
                   {"step alone", Align::right},
                   {"together", Align::right},
                   {"slower", Align::right}});
  for (std::size_t i = 0; i < plan.jobs.size(); ++i) {
    const PlacedJob& job = plan.jobs[i];
    if (!job.alone) {
      table.add({letter(i), job_name(job, paint), seat_words(job)});
      continue;
    }
    facts::Known<Bytes> capacity = job.alone->vram.capacity;
    if (job.seat == facts::Seat::mig) capacity.value = job.profile_memory;
    table.add({letter(i), job_name(job, paint), seat_words(job),
               fmt::format("{} / {}", to_text(job.alone->vram.fullest.peak_device_used),
                           capacity ? to_text(*capacity) : "?"),
               to_text(job.alone->ram.peak), job.step_alone ? to_text(*job.step_alone) : "?",
               job.step_together ? to_text(*job.step_together) : "", slower_words(job)});
  }
  return table.text(0, style.ascii ? "-" : "─");
}

// What each gets less of than it wants; jobs of which the same is true in one line.
std::string losses_text(const SharePlan& plan) {
  std::vector<std::pair<std::string, std::string>> lines;  // why, letters
  for (std::size_t i = 0; i < plan.jobs.size(); ++i) {
    const std::string text = why(plan.jobs[i]);
    if (text.empty()) continue;
    const auto same = std::ranges::find(lines, text, &std::pair<std::string, std::string>::first);
    if (same == lines.end()) {
      lines.emplace_back(text, letter(i));
    } else {
      same->second += ", " + letter(i);
    }
  }
  std::string text;
  for (const auto& [reason, letters] : lines) {
    const bool several = letters.find(',') != std::string::npos;
    text += fmt::format("{} {}: {}\n", letters, several ? "get" : "gets", reason);
  }
  return text;
}

// One column a GPU, a bar between sockets; several lines where several jobs are on one.
std::string map_text(const SharePlan& plan, const Style& style) {
  std::map<std::int64_t, std::vector<std::string>> on;
  std::size_t most = 1, width = 2;
  for (std::size_t i = 0; i < plan.jobs.size(); ++i) {
    for (const std::int64_t gpu : plan.jobs[i].on) {
      on[gpu].push_back(letter(i));
      most = std::max(most, on[gpu].size());
      width = std::max(width, letter(i).size());
    }
  }
  const auto line = [&](const char* head, const auto& cell) {
    std::string text = padded(head, 6);
    for (std::int64_t gpu = 0; gpu < plan.gpus; ++gpu) {
      const auto at = static_cast<std::size_t>(gpu);
      if (gpu > 0 && plan.socket_of_gpu[at] != plan.socket_of_gpu[at - 1]) {
        text += style.ascii ? " |" : " │";
      }
      text += padded(cell(gpu), width + 1, Align::right);
    }
    return text + "\n";
  };
  std::string text = line("GPU", [](std::int64_t gpu) { return std::to_string(gpu); });
  for (std::size_t row = 0; row < most; ++row) {
    text += line(row == 0 ? "job" : "", [&](std::int64_t gpu) -> std::string {
      const auto found = on.find(gpu);
      if (found == on.end()) return row == 0 ? "." : "";
      return row < found->second.size() ? found->second[row] : "";
    });
  }
  return text;
}

std::string ram_text(const facts::SharedRam& ram) {
  std::string text = "RAM, all jobs at the same moment:";
  for (std::size_t i = 0; i < facts::kRamPhases; ++i) {
    text += fmt::format(" {} {},", facts::name_of(static_cast<facts::RamPhase>(i)),
                        to_text(ram.phases[i]));
  }
  text += fmt::format(" each at its fullest {}; there: {}\n", to_text(ram.worst),
                      ram.capacity ? to_text(*ram.capacity) : "unknown");
  text += fmt::format("page cache: {} wanted for model files and datasets, {} left\n",
                      to_text(ram.page_cache_wanted),
                      ram.page_cache_left ? to_text(*ram.page_cache_left) : "unknown");
  return text;
}

std::string sums_text(const SharePlan& plan) {
  std::string text;
  for (const facts::SharedSum& sum : plan.sums) {
    if (sum.wanted <= 0.0) continue;
    const std::string name =
        sum.name.empty() ? std::string(facts::name_of(sum.resource)) : sum.name;
    text += fmt::format("{}: {} wanted, {} there{}\n", name, amount(sum.resource, sum.wanted),
                        amount(sum.resource, sum.capacity),
                        sum.wanted > sum.capacity ? ": shared fairly" : "");
  }
  return text;
}

std::string move_text(const SharePlan& plan, const Paint& paint) {
  if (plan.move.empty()) return "";
  std::string names;
  for (const std::int64_t index : plan.move) {
    const auto i = static_cast<std::size_t>(index);
    names += (names.empty() ? "" : ", ") + letter(i) + " " + job_name(plan.jobs[i], paint);
  }
  const bool all = plan.move.size() == plan.jobs.size();
  return all ? "nothing of this can run here\n" : fmt::format("move {}: the rest fits\n", names);
}

}  // namespace

std::string share_text(const SharePlan& plan, const Style& style) {
  const Paint paint(style);
  std::string text =
      fmt::format("{} job{} on {}: {}\n\n", plan.jobs.size(), plan.jobs.size() == 1 ? "" : "s",
                  paint.outside(plan.machine), verdict_words(plan.verdict));
  text += map_text(plan, style) + "\n" + jobs_text(plan, paint, style) + losses_text(plan) + "\n" +
          ram_text(plan.ram) + sums_text(plan);
  if (!plan.sentences.empty() || !plan.move.empty()) text += "\n";
  for (const std::string& sentence : plan.sentences) text += paint.outside(sentence) + "\n";
  text += move_text(plan, paint);
  if (!plan.exact) text += "the search for places was cut off: a better placement may exist\n";
  return text;
}

}  // namespace steelyard::report
