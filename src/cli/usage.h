// Arguments that make no sense, said in the words of Error: what was found, what is accepted, and
// the nearest name for a misspelling.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Error.hpp>
#include <string>
#include <vector>

#include "base/error.h"

namespace steelyard::cli {

// The first word must be a command (or an option of the program itself).
[[nodiscard]] Result<void> check_command(const CLI::App& tree,
                                         const std::vector<std::string>& arguments);

// What CLI11 refused.
[[nodiscard]] Error usage_error(const CLI::App& tree, const CLI::ParseError& refusal);

// Every value of an option with a closed list is in the list.
[[nodiscard]] Result<void> check_choices(const CLI::App& tree);

}  // namespace steelyard::cli
