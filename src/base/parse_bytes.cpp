#include "base/parse_bytes.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <string>
#include <utility>

namespace steelyard {
namespace {

constexpr std::pair<std::string_view, double> kUnits[] = {{"", 1},
                                                          {"b", 1},
                                                          {"kib", 1024.0},
                                                          {"mib", 1048576.0},
                                                          {"gib", 1073741824.0},
                                                          {"tib", 1099511627776.0},
                                                          {"kb", 1e3},
                                                          {"mb", 1e6},
                                                          {"gb", 1e9},
                                                          {"tb", 1e12}};

}  // namespace

Result<Bytes> parse_bytes(std::string_view text, std::string_view subject) {
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  std::string unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  unit.erase(0, unit.find_first_not_of(' '));
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr double kMost = 9e18;
  for (const auto& [name, factor] : kUnits) {
    const bool good = error == std::errc{} && name == unit && number >= 0;
    if (good && number * factor <= kMost) return Bytes(checked_round(number * factor));
  }
  return fail({.code = ErrorCode::bad_input,
               .subject = std::string(subject),
               .found = "\"" + std::string(text) + "\"",
               .accepted = "a size with its unit, such as 20GiB, 1.5TiB or 500MB"});
}

}  // namespace steelyard
