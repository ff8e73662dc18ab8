// Lists of 0 and 1 by layer as Megatron-LM's arguments write them in Python: "([0]*3+[1]*5)".
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace steelyard::model {

// "12" is 12; nothing when the text is no whole number.
[[nodiscard]] std::optional<std::int64_t> whole_of(std::string_view text);

// Lists, sums of lists and lists times a number, in brackets as deep as 16; nothing when the text
// is something else or names more than 100,000 layers.
[[nodiscard]] std::optional<std::vector<int>> layer_pattern(std::string_view text);

}  // namespace steelyard::model
