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
  TextTable verdicts;     // cases whose verdict is wrong
  TextTable impossible;   // printed figures that cannot be true; in no statistic
  TextTable outside;      // figures beyond their bound, by the reason that was found
  TextTable unsupported;  // reasons, the most frequent first
};

// How much the tables show: the terminal has a width, a document has not.
struct TableLimits {
  std::size_t id = 200;      // columns of a case's id before it is cut
  std::size_t reason = 240;  // the same of a reason
  std::size_t reasons =
      1000;                  // rows of the last table; what is left out is counted in its last row
  std::size_t examples = 3;  // ids beside a reason
};
[[nodiscard]] ValidationTables validation_tables(const facts::Validation& validation,
                                                 const TableLimits& limits);

// "1,234 figures of 900 cases compared; 120 cases could not be planned."
[[nodiscard]] std::string validation_headline(const facts::Validation& validation);

}  // namespace steelyard::report
