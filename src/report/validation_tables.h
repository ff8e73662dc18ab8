// What `steelyard validate` found, as tables: once for the terminal, once for Markdown.
#pragma once

#include "base/text_table.h"
#include "facts/cases.h"

namespace steelyard::report {

struct ValidationTables {
  TextTable overall;      // one row per group of quantities
  TextTable sources;      // one row per source, group and confidence
  TextTable worst;        // the five largest errors of each group
  TextTable fits;         // predicted against measured
  TextTable unsupported;  // reasons, the most frequent first
};

// `longest_reason`: columns of a reason before it is cut.
[[nodiscard]] ValidationTables validation_tables(const facts::Validation& validation,
                                                 std::size_t longest_reason);

// "1,234 figures of 900 cases compared; 120 cases could not be planned."
[[nodiscard]] std::string validation_headline(const facts::Validation& validation);

}  // namespace steelyard::report
