// "Did you mean": the known name nearest to a misspelt one.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace steelyard {

// The name with the least edit distance (insert, delete, substitute, swap of neighbours), if it is
// near enough to be a misspelling: at most a third of the longer name's length, and at least one
// character in common.
[[nodiscard]] std::optional<std::string> nearest_name(std::string_view misspelt,
                                                      std::span<const std::string> known);

// "a, b or c"; at most `most` names, then ", ... (N in all)".
[[nodiscard]] std::string listed(std::span<const std::string> names, std::size_t most = 12);

}  // namespace steelyard
