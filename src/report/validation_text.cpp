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
  constexpr std::size_t kId = 30;
  constexpr std::size_t kRest = 11;  // indent, the count's column and the gaps
  constexpr std::size_t kReasons = 12;
  const ValidationTables tables = validation_tables(
      validation,
      {.id = kId, .reason = paint.columns() - kId - kRest, .reasons = kReasons, .examples = 1});
  std::string text;
  for (const std::string& line : wrapped(validation_headline(validation), paint.columns())) {
    text += line + "\n";
  }
  const auto add = [&](std::string_view title, const TextTable& table) {
    if (table.empty()) return;
    text += "\n" + paint.ink(title, Ink::strong) + "\n" + table.text(2);
  };
  add("Overall", tables.overall);
  add("By source", tables.sources);
  add("Worst", tables.worst);
  add("Does it fit", tables.fits);
  add("Wrong verdicts", tables.verdicts);
  add("Impossible as printed", tables.impossible);
  add("Not planned", tables.unsupported);
  return text + "\n" + kErrorMeaning + "\n";
}

std::string validation_markdown(const facts::Validation& validation) {
  const ValidationTables tables = validation_tables(validation, {});
  std::string text =
      "# Predictions against measurements\n\n"
      "Written by `steelyard validate validation/cases --notes validation/notes.toml --append "
      "docs/published-layouts.md --markdown docs/validation.md`; do not edit by hand.\n\n" +
      validation_headline(validation) + "\n\n" + kErrorMeaning + "\n";
  const auto add = [&](std::string_view title, const TextTable& table) {
    if (table.empty()) return;
    text += "\n## " + std::string(title) + "\n\n" + table.markdown();
  };
  add("Overall", tables.overall);
  add("By source", tables.sources);
  add("The five largest errors of each quantity", tables.worst);
  add("Does it fit", tables.fits);
  add("Wrong verdicts", tables.verdicts);
  add("Impossible as printed", tables.impossible);
  add("Beyond the bounds", tables.outside);
  add("Not planned", tables.unsupported);
  return text;
}

}  // namespace steelyard::report
