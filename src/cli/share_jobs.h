// What `share` and `ratio` have in common: many jobs of many files, each with its planner.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "cli/planning.h"
#include "share/planner.h"

namespace steelyard::cli {

// Plans changed jobs of one file on machines of all kinds. Errors: those of the job file and of
// what it names in the catalogue; not whether it fits its own machine, which is never looked up.
[[nodiscard]] Result<share::Planner> planner_for(const ReadJob& read,
                                                 const catalog::Catalog& catalog);

// "[COPIESx]FILE[:GPUS]"; a file of that very name is itself.
struct CountedJob {
  std::int64_t copies = 1;
  std::string file;
  std::optional<std::int64_t> gpus{};
};
[[nodiscard]] Result<CountedJob> counted_job(const std::string& text);

// "dgx-*": whether an id has these parts in this order.
[[nodiscard]] bool matches_pattern(std::string_view pattern, std::string_view id);

// Writes a file beside its final name first. Errors name the option.
[[nodiscard]] Result<void> write_file(const std::string& option, const std::string& file,
                                      const std::string& text);

}  // namespace steelyard::cli
