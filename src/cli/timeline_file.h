// `plan --timeline FILE`: the step's memory as a file, whole or not at all.
#pragma once

#include <string>

#include "base/error.h"
#include "facts/plan.h"

namespace steelyard::cli {

// Errors: a name that ends neither in .html nor .json nor .json.gz. Empty: nothing to write.
[[nodiscard]] Result<void> check_timeline_file(const std::string& file);

// Writes a file beside it first and then renames. Errors: a folder that cannot be written to.
[[nodiscard]] Result<void> write_timeline(const facts::Plan& plan, const std::string& file);

}  // namespace steelyard::cli
