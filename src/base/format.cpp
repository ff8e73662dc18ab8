#include "base/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string_view>

namespace steelyard {
namespace {

constexpr int kSignificantDigits = 3;

// "2.30" -> "2.3", "4.00" -> "4", "900" stays.
std::string without_trailing_zeros(std::string number) {
  if (number.find('.') == std::string::npos) return number;
  while (number.back() == '0') number.pop_back();
  if (number.back() == '.') number.pop_back();
  return number;
}

// What a real number that is no number is called; empty for an ordinary one.
std::string_view oddity(double value) {
  if (std::isnan(value)) return "undefined";
  if (std::isinf(value)) return value > 0 ? "unlimited" : "-unlimited";
  return {};
}

// The value rounded to three significant digits, never to fewer than its whole part.
double rounded(double value) {
  if (value == 0.0) return 0.0;
  const double magnitude = std::floor(std::log10(std::abs(value)));
  const double step = std::pow(10.0, std::min(magnitude - (kSignificantDigits - 1), 0.0));
  return std::round(value / step) * step;
}

// Three significant digits: 3.35, 33.5, 335, 3350.
std::string significant(double value) {
  const double magnitude = value == 0.0 ? 0.0 : std::floor(std::log10(std::abs(rounded(value))));
  const int decimals = std::max(kSignificantDigits - 1 - static_cast<int>(magnitude), 0);
  return without_trailing_zeros(fmt::format("{:.{}f}", value, decimals));
}

// The value in the largest unit in which it is at least 1; units are a thousand apart, and a value
// that rounds up to 1000 of a unit is written as 1 of the next.
std::string decimal_text(double value, std::span<const std::string_view> units) {
  if (const auto odd = oddity(value); !odd.empty()) return std::string(odd);
  std::size_t unit = 0;
  while (std::abs(rounded(value)) >= 1000.0 && unit + 1 < units.size()) {
    value /= 1000.0;
    ++unit;
  }
  if (std::abs(value) >= 1e15) return fmt::format("{:.2e} {}", value, units[unit]);
  const std::string number = significant(value);
  return units[unit].empty() ? number : number + " " + std::string(units[unit]);
}

// Three significant digits with the thousands apart: "11,400", "0.42".
std::string grouped_significant(double value) {
  if (std::abs(rounded(value)) < 1000.0) return significant(value);
  if (std::abs(value) >= 1e15) return fmt::format("{:.2e}", value);
  const double step =
      std::pow(10.0, std::floor(std::log10(std::abs(value))) - (kSignificantDigits - 1));
  return grouped(std::llround(std::round(value / step) * step));
}

std::string per_second(double value, std::string_view things) {
  if (const auto odd = oddity(value); !odd.empty()) return std::string(odd);
  return fmt::format("{} {}/s", grouped_significant(value), things);
}

// Two units of whole numbers, the second with two digits: "2 h 05 min".
std::string two_units(std::int64_t small_units, std::int64_t ratio, std::string_view large,
                      std::string_view small) {
  return fmt::format("{} {} {:02} {}", grouped(small_units / ratio), large, small_units % ratio,
                     small);
}

std::string positive_duration(double seconds) {
  constexpr double kMinute = 60.0;
  constexpr double kHour = 3600.0;
  constexpr double kDay = 86400.0;
  constexpr double kLongest = 1e15;  // beyond, whole hours would leave 64 bits
  if (seconds == 0.0) return "0 s";
  if (seconds >= kLongest) return fmt::format("{:.2e} s", seconds);
  if (std::round(seconds / kHour) * kHour >= kDay) {
    return two_units(std::llround(seconds / kHour), 24, "d", "h");
  }
  if (std::round(seconds / kMinute) * kMinute >= kHour) {
    return two_units(std::llround(seconds / kMinute), 60, "h", "min");
  }
  if (rounded(seconds) >= kMinute) return two_units(std::llround(seconds), 60, "min", "s");
  if (rounded(seconds) >= 1.0) return significant(seconds) + " s";
  if (rounded(seconds * 1e3) >= 1.0) return significant(seconds * 1e3) + " ms";
  if (rounded(seconds * 1e6) >= 1.0) return significant(seconds * 1e6) + " us";
  return significant(seconds * 1e9) + " ns";
}

}  // namespace

std::string to_text(Bytes bytes) {
  constexpr std::array<std::string_view, 7> kUnits = {"B",   "KiB", "MiB", "GiB",
                                                      "TiB", "PiB", "EiB"};
  constexpr double kLargestBeforeNext = 1023.95;  // would print as 1024.0
  double value = bytes.real();
  std::size_t unit = 0;
  while (unit + 1 < kUnits.size() && std::abs(value) >= (unit == 0 ? 1024.0 : kLargestBeforeNext)) {
    value /= 1024.0;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes.value());
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string to_text(BytesPerSecond rate) {
  constexpr std::array<std::string_view, 6> kUnits = {"B/s",  "kB/s", "MB/s",
                                                      "GB/s", "TB/s", "PB/s"};
  return decimal_text(rate.value(), kUnits);
}

std::string to_text(FlopsPerSecond rate) {
  constexpr std::array<std::string_view, 7> kUnits = {"FLOP/s",  "kFLOP/s", "MFLOP/s", "GFLOP/s",
                                                      "TFLOP/s", "PFLOP/s", "EFLOP/s"};
  return decimal_text(rate.value(), kUnits);
}

std::string to_text(Flops flops) {
  constexpr std::array<std::string_view, 9> kUnits = {"FLOP",  "kFLOP", "MFLOP", "GFLOP", "TFLOP",
                                                      "PFLOP", "EFLOP", "ZFLOP", "YFLOP"};
  return decimal_text(flops.value(), kUnits);
}

std::string to_text(Seconds seconds) {
  if (const auto odd = oddity(seconds.value()); !odd.empty()) return std::string(odd);
  if (seconds.value() < 0) return "-" + positive_duration(-seconds.value());
  return positive_duration(seconds.value());
}

std::string to_text(SamplesPerSecond rate) {
  return per_second(rate.value(), "samples");
}

std::string to_text(TokensPerSecond rate) {
  return per_second(rate.value(), "tokens");
}

std::string to_text(Parameters parameters) {
  return compact(parameters.real());
}

std::string compact(double number) {
  constexpr std::array<std::string_view, 5> kUnits = {"", "K", "M", "B", "T"};
  return decimal_text(number, kUnits);
}

std::string percent(Ratio share) {
  if (const auto odd = oddity(share.value()); !odd.empty()) return std::string(odd);
  const double percents = share.value() * 100.0;
  if (percents == 0.0) return "0 %";
  constexpr double kTenth = 0.05;  // below, one decimal would show 0.0
  if (std::abs(percents) < kTenth) return percents > 0 ? "<0.1 %" : ">-0.1 %";
  if (std::abs(percents) >= 1e15) return fmt::format("{:.2e} %", percents);
  constexpr double kWholeFrom = 9.95;  // 9.95 would print as 10.0
  if (std::abs(percents) < kWholeFrom) return fmt::format("{:.1f} %", percents);
  return grouped(std::llround(percents)) + " %";
}

std::string grouped(std::int64_t number) {
  std::string digits = fmt::format("{}", number);
  const std::size_t first = digits.front() == '-' ? 1 : 0;
  for (std::size_t place = digits.size(); place > first + 3; place -= 3) {
    digits.insert(place - 3, ",");
  }
  return digits;
}

}  // namespace steelyard
