// Pieces of the kernel's text files.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard::sense {

// What a process was started with: names and values of environment variables.
using Environment = std::map<std::string, std::string, std::less<>>;

[[nodiscard]] std::vector<std::string_view> lines_of(std::string_view text);
// Separated by blanks and tabs.
[[nodiscard]] std::vector<std::string_view> words_of(std::string_view line);
[[nodiscard]] std::string_view trimmed(std::string_view text);
// Before and after the first `mark`, both trimmed; nothing without one.
[[nodiscard]] std::optional<std::pair<std::string_view, std::string_view>> split_at(
    std::string_view line, char mark);
// The whole text is a whole number; nothing otherwise.
[[nodiscard]] std::optional<std::int64_t> whole(std::string_view text);
[[nodiscard]] std::optional<double> real(std::string_view text);
// The number that a text starts with: 32 of "32.0 GT/s PCIe".
[[nodiscard]] std::optional<double> leading_number(std::string_view text);
// The kernel's lists: "0-3,8" is 0 1 2 3 8. What is no list is empty; at most 65,536 numbers.
[[nodiscard]] std::vector<std::int64_t> numbers_of_list(std::string_view list);
// "0-3,8" of 0 1 2 3 8.
[[nodiscard]] std::string list_of_numbers(const std::vector<std::int64_t>& numbers);
// The number at the end of a name: 12 of "cpu12"; nothing unless `prefix` and digits are all of it.
[[nodiscard]] std::optional<std::int64_t> number_behind(std::string_view prefix,
                                                        std::string_view name);
// What stands behind "key" and a colon in a file of such lines; the first one.
[[nodiscard]] std::optional<std::string_view> value_in(std::string_view text, std::string_view key);
// The last part of a path: what a symbolic link is named after.
[[nodiscard]] std::string last_part(std::string_view path);

}  // namespace steelyard::sense
