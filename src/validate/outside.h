// Predictions beyond their bound, by the reason that was found.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "facts/cases.h"

namespace steelyard::validate {

// What an error may be before it has to be explained: VRAM's 90th percentiles that the project
// promises (8 % for cases of high confidence, 15 % for others), 20 % for RAM and pace.
[[nodiscard]] Ratio bound_of(facts::QuantityGroup group, std::string_view confidence);

// "*" in the pattern stands for any characters, also none.
[[nodiscard]] bool matches(std::string_view pattern, std::string_view text);

// Every figure beyond its bound; those with the same reason together, the largest groups first,
// those without a reason last. The first note that matches a figure counts.
[[nodiscard]] std::vector<facts::Outside> outside(const facts::Validation& validation,
                                                  std::span<const facts::CaseNote> notes);

}  // namespace steelyard::validate
