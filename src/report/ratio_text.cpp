// `steelyard ratio` on a terminal and as CSV.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/text.h"
#include "base/text_table.h"
#include "report/paint.h"
#include "report/share_report.h"

namespace steelyard::report {
namespace {

using facts::GpuRatio;
using facts::MachineForMix;
using facts::MachineRatio;
using facts::MixRatio;
using facts::RatioCell;

std::string rule_words(const facts::RuleOfThumb& rule) {
  return fmt::format("{:.0f}-{:.0f}{}", rule.low.value(), rule.high.value(),
                     rule.open_ended ? "+" : "");
}

std::string ratio_words(const std::optional<Ratio>& ratio) {
  return ratio ? fmt::format("{:.2f}", ratio->value()) : "";
}

std::string bytes_words(const std::optional<Bytes>& bytes) {
  return bytes ? to_text(*bytes) : "";
}

// What the needed ratio is beside the rule of thumb.
std::string beside(const GpuRatio& line) {
  if (!line.ratio_most) return "";
  if (*line.ratio_most < line.rule.low) return "rule asks for more";
  if (*line.ratio_most > line.rule.high)
    return line.rule.open_ended ? "as the rule" : "rule is short";
  return "as the rule";
}

std::string letter(std::size_t job) {
  constexpr std::size_t kLetters = 26;
  return job < kLetters ? std::string(1, static_cast<char>('A' + job))
                        : fmt::format("J{}", job + 1);
}

std::string range_words(Bytes least, Bytes most) {
  const std::string low = to_text(least), high = to_text(most);
  return low == high ? low : low + " to " + high;
}

// "from 24.0 GiB (rtx-3090)": the smallest card on which a job fits.
struct OverCards {
  std::size_t planned = 0, fits = 0;
  Bytes vram_least, vram_most, ram_least, ram_most, cache_most;
  std::string smallest;
};

OverCards over_cards(const MixRatio& mix, std::size_t job) {
  OverCards over;
  for (const GpuRatio& line : mix.gpus) {
    const RatioCell& cell = line.cells[job];
    if (!cell.refused.empty()) continue;
    const bool first = over.planned++ == 0;
    over.vram_least = first ? cell.vram_peak : std::min(over.vram_least, cell.vram_peak);
    over.vram_most = std::max(over.vram_most, cell.vram_peak);
    over.ram_least = first ? cell.ram_per_gpu : std::min(over.ram_least, cell.ram_per_gpu);
    over.ram_most = std::max(over.ram_most, cell.ram_per_gpu);
    over.cache_most = std::max(over.cache_most, cell.page_cache_per_gpu);
    if (!cell.fits) continue;
    if (over.fits++ == 0) over.smallest = fmt::format("{} ({})", to_text(line.vram), line.gpu);
  }
  return over;
}

std::string jobs_text(const MixRatio& mix, const Paint& paint, const Style& style) {
  TextTable table({{""},
                   {"job"},
                   {"weight", Align::right},
                   {"nodes x GPUs", Align::right},
                   {"VRAM per GPU", Align::right},
                   {"RAM per GPU", Align::right},
                   {"page cache on top", Align::right},
                   {"fits on cards from"}});
  for (std::size_t j = 0; j < mix.jobs.size(); ++j) {
    const facts::MixedJob& job = mix.jobs[j];
    const OverCards over = over_cards(mix, j);
    table.add({letter(j), paint.outside(job.name), fmt::format("{:g}", job.weight),
               fmt::format("{} x {}", grouped(job.nodes), job.gpus),
               over.planned == 0 ? "" : range_words(over.vram_least, over.vram_most),
               over.planned == 0 ? "" : range_words(over.ram_least, over.ram_most),
               over.planned == 0 ? "" : to_text(over.cache_most),
               over.fits > 0      ? over.smallest
               : over.planned > 0 ? "none of these"
                                  : "refused"});
  }
  std::string text = table.text(0, style.ascii ? "-" : "─");
  for (std::size_t j = 0; j < mix.jobs.size(); ++j) {
    if (over_cards(mix, j).planned > 0 || mix.gpus.empty()) continue;
    text += fmt::format("{}: {}\n", letter(j), paint.outside(mix.gpus.front().cells[j].refused));
  }
  return text;
}

std::string who_fits(const GpuRatio& line) {
  std::string who;
  for (std::size_t j = 0; j < line.cells.size(); ++j) who += line.cells[j].fits ? letter(j) : "-";
  return who;
}

std::string gpus_text(const MixRatio& mix, const Style& style) {
  TextTable table({{"GPU"},
                   {"VRAM", Align::right},
                   {"fit"},
                   {"mean", Align::right},
                   {"most", Align::right},
                   {"of"},
                   {"with page cache", Align::right},
                   {"RAM : VRAM mean", Align::right},
                   {"most", Align::right},
                   {"rule of thumb", Align::right},
                   {""}});
  std::string nothing;
  for (const GpuRatio& line : mix.gpus) {
    if (!line.ram_most) {
      nothing += (nothing.empty() ? "" : ", ") + line.gpu;
      continue;
    }
    table.add({line.gpu, to_text(line.vram), who_fits(line), bytes_words(line.ram_mean),
               bytes_words(line.ram_most), letter(line.neediest), bytes_words(line.with_page_cache),
               ratio_words(line.ratio_mean), ratio_words(line.ratio_most), rule_words(line.rule),
               beside(line)});
  }
  std::string text =
      "RAM per GPU that the mix needs, on each kind of GPU (letters: the jobs that fit)\n";
  if (!table.empty()) text += table.text(0, style.ascii ? "-" : "─");
  if (!nothing.empty()) {
    for (const std::string& line : wrapped("nothing of the mix fits on: " + nothing,
                                           static_cast<std::size_t>(std::max(40, style.columns)))) {
      text += line + "\n";
    }
  }
  return text;
}

const char* heading(MachineForMix verdict) {
  switch (verdict) {
    case MachineForMix::enough: return "enough RAM and VRAM for the whole mix";
    case MachineForMix::over_bought:
      return "over-bought: less than a quarter of the RAM would be used, page cache included";
    case MachineForMix::ram_short: return "RAM short";
    case MachineForMix::vram_short: return "VRAM short";
    case MachineForMix::refused: return "a job cannot go there";
    case MachineForMix::unknown: return "RAM unknown";
  }
  return "";
}

std::string price_words(const MachineRatio& line) {
  if (!line.price_per_gpu_hour) return "";
  return fmt::format("{:.2f} {}", *line.price_per_gpu_hour, line.currency);
}

std::string machines_text(const MixRatio& mix, const Paint& paint, const Style& style,
                          std::size_t most) {
  std::string text;
  for (std::size_t v = 0; v < facts::EnumNames<MachineForMix>::values.size(); ++v) {
    const auto verdict = static_cast<MachineForMix>(v);
    TextTable table({{"machine"},
                     {"GPUs"},
                     {"RAM per GPU", Align::right},
                     {"needed", Align::right},
                     {"RAM : VRAM there", Align::right},
                     {"needed", Align::right},
                     {"price per GPU and hour", Align::right},
                     {"most, or short"}});
    std::size_t count = 0;
    for (const MachineRatio& line : mix.machines) {
      if (line.verdict != verdict || ++count > most) continue;
      table.add({line.machine, fmt::format("{} x {}", line.gpus, line.gpu),
                 line.ram_per_gpu ? to_text(*line.ram_per_gpu) : "?", bytes_words(line.needed),
                 line.ratio_installed ? ratio_words(line.ratio_installed) : "?",
                 ratio_words(line.ratio_needed), price_words(line), paint.outside(line.why)});
    }
    if (count == 0) continue;
    text += fmt::format("\n{} ({}{})\n", heading(verdict), count,
                        count == 1 ? " machine" : " machines") +
            table.text(0, style.ascii ? "-" : "─");
    if (count > most) text += fmt::format("... and {} more (--json, --html)\n", count - most);
  }
  return text;
}

std::string quoted(const std::string& text) {
  std::string cell = "\"";
  for (const char c : text) {
    if (c == '"') cell += '"';
    cell += c;
  }
  return cell + "\"";
}

}  // namespace

std::string ratio_text(const MixRatio& mix, const Style& style, std::size_t most) {
  const Paint paint(style);
  std::string text = fmt::format("{}: {} job{}", paint.outside(mix.mix), mix.jobs.size(),
                                 mix.jobs.size() == 1 ? "" : "s");
  if (!mix.about.empty()) text += "; " + paint.outside(mix.about);
  if (mix.rule) text += fmt::format("; rule of thumb RAM : VRAM {}", rule_words(*mix.rule));
  text += "\n\n" + jobs_text(mix, paint, style) + "\n" + gpus_text(mix, style);
  return text + machines_text(mix, paint, style, most);
}

std::string ratio_csv(const MixRatio& mix) {
  std::string csv =
      "gpu,vram_bytes,job,weight,nodes,gpus_per_node,fits,vram_peak_bytes,ram_per_gpu_bytes,"
      "page_cache_per_gpu_bytes,ratio_needed,rule_low,rule_high,rule_open_ended,refused\r\n";
  for (const GpuRatio& line : mix.gpus) {
    for (std::size_t j = 0; j < line.cells.size(); ++j) {
      const RatioCell& cell = line.cells[j];
      const facts::MixedJob& job = mix.jobs[j];
      const facts::RuleOfThumb& rule = mix.rule || !cell.rule ? line.rule : *cell.rule;
      csv += fmt::format("{},{},{},{},{},{},{},", quoted(line.gpu), line.vram.value(),
                         quoted(job.name), job.weight, job.nodes, job.gpus,
                         cell.refused.empty() ? (cell.fits ? "true" : "false") : "");
      if (cell.refused.empty()) {
        csv += fmt::format("{},{},{},{}", cell.vram_peak.value(), cell.ram_per_gpu.value(),
                           cell.page_cache_per_gpu.value(), (cell.ram_per_gpu / line.vram).value());
      } else {
        csv += ",,,";
      }
      csv += fmt::format(",{},{},{},{}\r\n", rule.low.value(), rule.high.value(), rule.open_ended,
                         cell.refused.empty() ? "" : quoted(cell.refused));
    }
  }
  return csv;
}

}  // namespace steelyard::report
