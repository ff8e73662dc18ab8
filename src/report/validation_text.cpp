#include <algorithm>

#include "report/paint.h"
#include "report/report.h"
#include "report/validation_tables.h"

namespace steelyard::report {
namespace {

constexpr const char* kErrorMeaning =
    "error: predicted / measured - 1, 0 inside a bracket; bias: its median with sign.";

}  // namespace

std::string validation_text(const facts::Validation& validation, const Style& style) {
  const Paint paint(style);
  constexpr std::size_t kLeastReason = 24;
  const std::size_t reason = std::max(kLeastReason, (paint.columns() - 10) / 2);
  const ValidationTables tables = validation_tables(validation, reason);
  std::string text = validation_headline(validation) + "\n";
  const auto add = [&](std::string_view title, const TextTable& table) {
    if (table.empty()) return;
    text += "\n" + paint.ink(title, Ink::strong) + "\n" + table.text(2);
  };
  add("Overall", tables.overall);
  add("By source", tables.sources);
  add("Worst", tables.worst);
  add("Does it fit", tables.fits);
  add("Not planned", tables.unsupported);
  return text + "\n" + kErrorMeaning + "\n";
}

std::string validation_markdown(const facts::Validation& validation) {
  constexpr std::size_t kWholeReason = 240;
  const ValidationTables tables = validation_tables(validation, kWholeReason);
  std::string text =
      "# Predictions against measurements\n\n"
      "Written by `steelyard validate validation/cases --markdown docs/validation.md`; do not edit "
      "by hand.\n\n" +
      validation_headline(validation) + "\n\n" + kErrorMeaning + "\n";
  const auto add = [&](std::string_view title, const TextTable& table) {
    if (table.empty()) return;
    text += "\n## " + std::string(title) + "\n\n" + table.markdown();
  };
  add("Overall", tables.overall);
  add("By source", tables.sources);
  add("The five largest errors of each quantity", tables.worst);
  add("Does it fit", tables.fits);
  add("Not planned", tables.unsupported);
  return text;
}

}  // namespace steelyard::report
