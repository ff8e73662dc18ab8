// `plan --timeline FILE`: the step's memory as a file, whole or not at all.
#pragma once

#include <string>

#include "base/error.h"
#include "facts/pace_why.h"
#include "facts/plan.h"

namespace steelyard::cli {

// Errors: a name that ends neither in .html nor .json nor .json.gz. Empty: nothing to write.
[[nodiscard]] Result<void> check_timeline_file(const std::string& file);

// The same of a step's time, which is no page: the name ends in .json or .json.gz.
[[nodiscard]] Result<void> check_trace_file(const std::string& file);
[[nodiscard]] Result<void> write_trace(const facts::PaceWhy& why, const std::string& file);

// Writes a file beside it first and then renames. Errors: a folder that cannot be written to.
[[nodiscard]] Result<void> write_timeline(const facts::Plan& plan, const std::string& file);

}  // namespace steelyard::cli
