#include "report/steelyard_drawing.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.h"

namespace steelyard::report {
namespace {

constexpr std::size_t kArm = 8;  // columns left of the fulcrum: "VRAM", the pan and the short arm
constexpr std::size_t kEnd = 5;  // columns right of the beam: the end and "RAM"

constexpr double kLongestBeam = 900.0;  // a ratio beyond it is pointed at from the beam's end

struct Scale {
  double last = 1.0;      // the ratio at the beam's end
  double step = 1.0;      // between two ticks
  std::size_t cells = 1;  // of the beam

  [[nodiscard]] std::size_t at(double ratio) const {
    if (std::isnan(ratio)) return 0;
    const double cell = ratio / last * static_cast<double>(cells - 1);
    return static_cast<std::size_t>(
        std::round(std::clamp(cell, 0.0, static_cast<double>(cells - 1))));
  }
};

Scale scale_for(const facts::BalancePlan& balance, std::size_t cells) {
  double largest = std::max(1.0, balance.rule_high.value());
  if (balance.ratio_needed) largest = std::max(largest, balance.ratio_needed->value());
  if (balance.ratio_installed) largest = std::max(largest, balance.ratio_installed->value());
  largest = std::min(largest, kLongestBeam);
  constexpr double kMostTicks = 10.0;
  constexpr std::array<double, 3> kSteps = {1.0, 2.0, 5.0};
  double step = 1.0;
  for (std::size_t i = 0; largest / step > kMostTicks; ++i) {
    step = kSteps[(i + 1) % 3] * std::pow(10.0, static_cast<double>((i + 1) / 3));
  }
  return {.last = (std::floor(largest / step) + 1.0) * step, .step = step, .cells = cells};
}

// A pointer with its words on a line of its own; the words stand left of it near the right end.
std::string pointer_line(std::string_view pointer, const std::string& words, std::size_t at,
                         std::size_t width) {
  const std::size_t column = kArm + at;
  const bool right = column + 2 + display_width(words) <= width;
  if (right) return std::string(column, ' ') + std::string(pointer) + " " + words;
  return padded(words + " ", column, Align::right) + std::string(pointer);
}

bool is_tick(const Scale& scale, std::size_t cell) {
  const auto nearest = std::round(static_cast<double>(cell) / static_cast<double>(scale.cells - 1) *
                                  scale.last / scale.step);
  return scale.at(nearest * scale.step) == cell;
}

std::string beam_line(const facts::BalancePlan& balance, const Scale& scale, const Paint& paint) {
  const Signs& signs = paint.signs();
  const std::size_t rule_first = scale.at(balance.rule_low.value());
  const std::size_t rule_last =
      balance.rule_open_ended ? scale.cells - 1 : scale.at(balance.rule_high.value());
  const bool has_rule = balance.rule_high.value() > 0.0;
  std::string line = "VRAM " + std::string(signs.load) + repeated(signs.beam, 2);
  for (std::size_t cell = 0; cell < scale.cells; ++cell) {
    const bool ruled = has_rule && cell >= rule_first && cell <= rule_last;
    const bool tick = is_tick(scale, cell);
    if (cell == 0) {
      line += signs.fulcrum;
    } else if (ruled && balance.rule_open_ended && cell == scale.cells - 1) {
      line += paint.ink(signs.onward, Ink::cyan);
    } else if (ruled) {
      line += paint.ink(tick ? signs.rule_tick : signs.rule, Ink::cyan);
    } else {
      line += tick ? signs.tick : signs.beam;
    }
  }
  return line + " RAM";
}

std::string number_line(const Scale& scale) {
  std::string line;
  for (double ratio = 0.0; ratio <= scale.last + scale.step / 2; ratio += scale.step) {
    const std::string number = fmt::format("{:g}", ratio);
    const std::size_t column = kArm + scale.at(ratio);
    line = padded(line, column) + number;
  }
  return line;
}

}  // namespace

std::string ratio_text(Ratio ratio) {
  constexpr double kWholeFrom = 9.95;
  constexpr double kShortFrom = 1e6;
  if (ratio.value() > 0.0 && ratio.value() < 0.05) return "<0.1";
  if (ratio.value() >= kShortFrom) return fmt::format("{:.1e}", ratio.value());
  std::string text = fmt::format("{:.{}f}", ratio.value(), ratio.value() < kWholeFrom ? 1 : 0);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

std::vector<std::string> steelyard_lines(const facts::BalancePlan& balance, std::size_t width,
                                         const Paint& paint) {
  const Signs& signs = paint.signs();
  const Scale scale = scale_for(balance, width - kArm - kEnd);
  std::vector<std::string> lines;
  if (balance.ratio_needed) {
    lines.push_back(pointer_line(signs.down, "needed " + ratio_text(*balance.ratio_needed),
                                 scale.at(balance.ratio_needed->value()), width));
  }
  lines.push_back(beam_line(balance, scale, paint));
  lines.push_back(paint.ink(number_line(scale), Ink::quiet));
  if (balance.ratio_installed) {
    lines.push_back(pointer_line(signs.up, "installed " + ratio_text(*balance.ratio_installed),
                                 scale.at(balance.ratio_installed->value()), width));
  }
  return lines;
}

}  // namespace steelyard::report
