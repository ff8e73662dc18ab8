// The mix on every kind of GPU, drawn: one HTML file that needs nothing beside it and no script.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "report/share_report.h"

namespace steelyard::report {
namespace {

using facts::GpuRatio;
using facts::MixRatio;

std::string escaped(std::string_view text) {
  std::string html;
  for (const char c : text) {
    switch (c) {
      case '&': html += "&amp;"; break;
      case '<': html += "&lt;"; break;
      case '>': html += "&gt;"; break;
      case '"': html += "&quot;"; break;
      default: html += c;
    }
  }
  return html;
}

constexpr const char* kStyle =
    "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;"
    "color:#1b1f24;background:#fff}"
    "table{border-collapse:collapse;margin:1em 0}"
    "td,th{padding:.25em .7em;border-bottom:1px solid #d8dee4;text-align:left;vertical-align:top}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    "svg{width:100%;height:auto;font:12px system-ui,sans-serif}"
    ".rule{fill:#e7c66b;fill-opacity:.45}.most{fill:#9db8d9}.mean{fill:#2f6db5}"
    ".axis{stroke:#8c959f;stroke-width:1}.word{fill:#1b1f24}.quiet{fill:#57606a;color:#57606a}"
    "@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}"
    "td,th{border-color:#30363d}.word{fill:#e6edf3}.quiet{fill:#9da7b3;color:#9da7b3}}";

// The chart's measures, in units of its view box.
constexpr double kWidth = 1000.0, kLeft = 190.0, kRight = 70.0, kRow = 26.0, kTop = 30.0;

double scale_of(const MixRatio& mix) {
  double most = 1.0;
  for (const GpuRatio& line : mix.gpus) {
    if (!line.ratio_most) continue;
    most = std::max({most, line.ratio_most->value(), line.rule.high.value()});
  }
  return most * 1.02;
}

std::string bar(const char* kind, double from, double to, double top, double height) {
  return fmt::format(
      "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", kind,
      from, top, std::max(0.0, to - from), height);
}

std::string axis(double scale, double bottom) {
  std::string svg;
  const double step = scale > 24.0 ? 5.0 : scale > 8.0 ? 2.0 : 1.0;
  for (double tick = 0.0; tick <= scale; tick += step) {
    const double x = kLeft + (kWidth - kLeft - kRight) * tick / scale;
    svg += fmt::format(
        "<line class=\"axis\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" "
        "stroke-opacity=\".35\"/><text class=\"quiet\" x=\"{0:.1f}\" y=\"{3:.1f}\" "
        "text-anchor=\"middle\">{4:.0f}</text>",
        x, kTop - 6.0, bottom, kTop - 12.0, tick);
  }
  return svg;
}

std::string chart(const MixRatio& mix) {
  const double scale = scale_of(mix);
  const auto x = [scale](double ratio) {
    return kLeft + (kWidth - kLeft - kRight) * std::min(ratio, scale) / scale;
  };
  std::string rows;
  double top = kTop;
  for (const GpuRatio& line : mix.gpus) {
    if (!line.ratio_most) continue;
    const double high = line.rule.open_ended ? scale : line.rule.high.value();
    rows +=
        fmt::format("<g><title>{}: mean {:.2f}, most {:.2f} ({}); rule {:.0f} to {:.0f}{}</title>",
                    escaped(line.gpu), line.ratio_mean->value(), line.ratio_most->value(),
                    escaped(mix.jobs[line.neediest].name), line.rule.low.value(),
                    line.rule.high.value(), line.rule.open_ended ? " and more" : "");
    rows += bar("rule", x(line.rule.low.value()), x(high), top, kRow - 4.0);
    rows += bar("most", kLeft, x(line.ratio_most->value()), top + 3.0, kRow - 10.0);
    rows += bar("mean", kLeft, x(line.ratio_mean->value()), top + 7.0, kRow - 18.0);
    rows += fmt::format(
        "<text class=\"word\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>"
        "<text class=\"word\" x=\"{:.1f}\" y=\"{:.1f}\">{:.2f}</text></g>\n",
        kLeft - 8.0, top + kRow * 0.6, escaped(line.gpu), x(line.ratio_most->value()) + 5.0,
        top + kRow * 0.6, line.ratio_most->value());
    top += kRow;
  }
  return fmt::format(
      "<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"RAM per VRAM that the mix "
      "needs "
      "on each kind of GPU, beside the rule of thumb\">{}{}</svg>",
      kWidth, top + 10.0, axis(scale, top), rows);
}

std::string number(const std::string& text) {
  return "<td class=\"n\">" + text + "</td>";
}

std::string word(std::string_view text) {
  return "<td>" + escaped(text) + "</td>";
}

std::string jobs_table(const MixRatio& mix) {
  std::string html =
      "<table><tr><th>job</th><th class=\"n\">weight</th><th class=\"n\">nodes</th>"
      "<th class=\"n\">GPUs of each</th></tr>\n";
  for (const facts::MixedJob& job : mix.jobs) {
    html += "<tr>" + word(job.name) + number(fmt::format("{:g}", job.weight)) +
            number(grouped(job.nodes)) + number(grouped(job.gpus)) + "</tr>\n";
  }
  return html + "</table>";
}

std::string cell_words(const facts::RatioCell& cell) {
  if (!cell.refused.empty())
    return "<td class=\"quiet\">refused: " + escaped(cell.refused) + "</td>";
  if (!cell.fits) return "<td class=\"quiet\">needs " + to_text(cell.vram_peak) + " VRAM</td>";
  return number(to_text(cell.ram_per_gpu));
}

std::string gpus_table(const MixRatio& mix) {
  std::string html = "<table><tr><th>GPU</th><th class=\"n\">VRAM</th>";
  for (const facts::MixedJob& job : mix.jobs)
    html += "<th class=\"n\">" + escaped(job.name) + "</th>";
  html +=
      "<th class=\"n\">most</th><th class=\"n\">with page cache</th><th class=\"n\">RAM : VRAM</th>"
      "<th class=\"n\">rule</th></tr>\n";
  for (const GpuRatio& line : mix.gpus) {
    html += "<tr>" + word(line.gpu) + number(to_text(line.vram));
    for (const facts::RatioCell& cell : line.cells) html += cell_words(cell);
    html += number(line.ram_most ? to_text(*line.ram_most) : "") +
            number(line.with_page_cache ? to_text(*line.with_page_cache) : "") +
            number(line.ratio_most ? fmt::format("{:.2f}", line.ratio_most->value()) : "") +
            number(fmt::format("{:.0f} to {:.0f}{}", line.rule.low.value(), line.rule.high.value(),
                               line.rule.open_ended ? " and more" : "")) +
            "</tr>\n";
  }
  return html + "</table>";
}

std::string machines_table(const MixRatio& mix) {
  std::string html =
      "<table><tr><th>machine</th><th>GPUs</th><th>verdict</th><th class=\"n\">RAM per GPU</th>"
      "<th class=\"n\">needed</th><th class=\"n\">RAM : VRAM</th><th class=\"n\">needed</th>"
      "<th class=\"n\">per GPU and hour</th><th>most, or short</th></tr>\n";
  for (const facts::MachineRatio& line : mix.machines) {
    std::string verdict(name_of(line.verdict));
    std::replace(verdict.begin(), verdict.end(), '_', ' ');
    const auto ratio = [](const std::optional<Ratio>& r) {
      return number(r ? fmt::format("{:.2f}", r->value()) : "");
    };
    html += "<tr>" + word(line.machine) + word(fmt::format("{} x {}", line.gpus, line.gpu)) +
            word(verdict) + number(line.ram_per_gpu ? to_text(*line.ram_per_gpu) : "unknown") +
            number(line.needed ? to_text(*line.needed) : "") + ratio(line.ratio_installed) +
            ratio(line.ratio_needed) +
            number(line.price_per_gpu_hour
                       ? fmt::format("{:.2f} {}", *line.price_per_gpu_hour, escaped(line.currency))
                       : "") +
            word(line.why) + "</tr>\n";
  }
  return html + "</table>";
}

}  // namespace

std::string ratio_page(const MixRatio& mix) {
  const std::string title = escaped(mix.mix) + ": RAM per GPU";
  std::string html = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n<p>{2}</p>\n",
      title, kStyle, escaped(mix.about));
  html +=
      "<h2>The mix</h2>\n" + jobs_table(mix) +
      "\n<h2>RAM : VRAM needed, on each kind of GPU</h2>\n"
      "<p class=\"quiet\">Light bar and figure: the job that needs most; dark bar: the mean by "
      "weight; yellow: the rule of thumb. Kinds on which nothing of the mix fits are left out."
      "</p>\n" +
      chart(mix) + "\n<h2>RAM per GPU, job by job</h2>\n" + gpus_table(mix) +
      "\n<h2>Machines of the catalogue</h2>\n"
      "<p class=\"quiet\">Over-bought: less than a quarter of the RAM would be used, page cache "
      "included. Needed: the node filled with copies of the job that needs most.</p>\n" +
      machines_table(mix) + "\n</body>\n</html>\n";
  return html;
}

}  // namespace steelyard::report
