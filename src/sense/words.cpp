#include "sense/words.h"

#include <fmt/format.h>

#include <charconv>

namespace steelyard::sense {
namespace {

constexpr std::size_t kLongestList = 65'536;
constexpr std::string_view kBlank = " \t\r\n";

}  // namespace

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (std::size_t at = line.find_first_not_of(kBlank); at != std::string_view::npos;
       at = line.find_first_not_of(kBlank, at)) {
    const std::size_t end = std::min(line.find_first_of(kBlank, at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

std::optional<std::pair<std::string_view, std::string_view>> split_at(std::string_view line,
                                                                      char mark) {
  const std::size_t at = line.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  return std::pair(trimmed(line.substr(0, at)), trimmed(line.substr(at + 1)));
}

std::optional<std::int64_t> whole(std::string_view text) {
  std::int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> real(std::string_view text) {
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> leading_number(std::string_view text) {
  const std::size_t end = std::min(text.find_first_not_of("0123456789."), text.size());
  return real(text.substr(0, end));
}

std::vector<std::int64_t> numbers_of_list(std::string_view list) {
  std::vector<std::int64_t> numbers;
  list = trimmed(list);
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(','), list.size());
    const std::string_view part = list.substr(0, end);
    const auto range = split_at(part, '-');
    const auto first = whole(range ? range->first : part);
    const auto last = whole(range ? range->second : part);
    if (!first || !last || *first < 0 || *last < *first) return {};
    if (static_cast<std::size_t>(*last - *first) >= kLongestList - numbers.size()) return {};
    for (std::int64_t n = *first; n <= *last; ++n) numbers.push_back(n);
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return numbers;
}

std::string list_of_numbers(const std::vector<std::int64_t>& numbers) {
  std::string list;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    if (!list.empty()) list += ',';
    list +=
        last == i ? fmt::format("{}", numbers[i]) : fmt::format("{}-{}", numbers[i], numbers[last]);
    i = last + 1;
  }
  return list;
}

std::optional<std::int64_t> number_behind(std::string_view prefix, std::string_view name) {
  if (!name.starts_with(prefix)) return std::nullopt;
  const auto number = whole(name.substr(prefix.size()));
  return number && *number >= 0 ? number : std::nullopt;
}

std::optional<std::string_view> value_in(std::string_view text, std::string_view key) {
  for (const std::string_view line : lines_of(text)) {
    const auto parts = split_at(line, ':');
    if (parts && parts->first == key) return parts->second;
  }
  return std::nullopt;
}

std::string last_part(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  const std::size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

}  // namespace steelyard::sense
