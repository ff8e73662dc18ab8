#include "report/validation_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/format.h"
#include "base/quantity.h"

namespace steelyard::report {
namespace {

using facts::name_of;

constexpr std::size_t kWorst = 5;

std::string signed_percent(Ratio error) {
  const std::string text = percent(error);
  return error.value() > 0.0 ? "+" + text : text;
}

// A measured or predicted figure in the unit its name says.
std::string figure(const std::string& quantity, facts::QuantityGroup group, double value) {
  const bool size = group == facts::QuantityGroup::vram || group == facts::QuantityGroup::ram;
  if (size && std::abs(value) < 9e18) {
    return to_text(Bytes(checked_round(value)));
  }
  if (quantity == "step_seconds") return to_text(Seconds(value));
  if (quantity == "tokens_per_second_per_gpu") return to_text(TokensPerSecond(value));
  if (quantity.ends_with("samples_per_second")) return to_text(SamplesPerSecond(value));
  if (quantity.ends_with("tflops_per_gpu")) return fmt::format("{:.4g} TFLOP/s", value);
  if (quantity.ends_with("fu")) return percent(Ratio(value));
  return fmt::format("{:.4g}", value);
}

void add_errors(std::vector<std::string>& row, const facts::ErrorSummary& errors) {
  row.push_back(grouped(errors.cases));
  row.push_back(percent(errors.median_absolute_error));
  row.push_back(percent(errors.p90_absolute_error));
  row.push_back(signed_percent(errors.bias));
}

TextTable overall_table(const facts::Validation& validation) {
  TextTable table({{"quantity"},
                   {"cases", Align::right},
                   {"median error", Align::right},
                   {"90th percentile", Align::right},
                   {"bias", Align::right}});
  for (const facts::ErrorSummary& errors : validation.overall) {
    std::vector<std::string> row = {std::string(name_of(errors.group))};
    add_errors(row, errors);
    table.add(std::move(row));
  }
  return table;
}

TextTable sources_table(const facts::Validation& validation) {
  TextTable table({{"source"},
                   {"quantity"},
                   {"confidence"},
                   {"cases", Align::right},
                   {"median error", Align::right},
                   {"90th percentile", Align::right},
                   {"bias", Align::right}});
  for (const facts::ErrorSummary& errors : validation.summary) {
    std::vector<std::string> row = {printable(errors.source), std::string(name_of(errors.group)),
                                    printable(errors.confidence)};
    add_errors(row, errors);
    table.add(std::move(row));
  }
  return table;
}

TextTable worst_table(const facts::Validation& validation, const TableLimits& limits) {
  TextTable table({{"case"},
                   {"quantity"},
                   {"measured", Align::right},
                   {"predicted", Align::right},
                   {"error", Align::right}});
  std::vector<const facts::Comparison*> order;
  for (const facts::Comparison& comparison : validation.cases) {
    if (comparison.impossible.empty()) order.push_back(&comparison);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    if (a->group != b->group) return a->group < b->group;
    return std::abs(a->error.value()) > std::abs(b->error.value());
  });
  std::map<facts::QuantityGroup, std::size_t> shown;
  for (const facts::Comparison* c : order) {
    if (shown[c->group]++ >= kWorst || c->error.value() == 0.0) continue;
    table.add({shortened(printable(c->id), limits.id), printable(c->quantity),
               figure(c->quantity, c->group, c->measured),
               figure(c->quantity, c->group, c->predicted), signed_percent(c->error)});
  }
  return table;
}

TextTable fits_table(const facts::FitsConfusion& fits) {
  TextTable table({{""}, {"it did fit", Align::right}, {"it did not", Align::right}});
  table.add({"planned to fit", grouped(fits.true_positive), grouped(fits.false_positive)});
  table.add({"planned not to", grouped(fits.false_negative), grouped(fits.true_negative)});
  return table;
}

TextTable verdicts_table(const facts::Validation& validation, const TableLimits& limits) {
  TextTable table({{"case"}, {"it"}, {"planned at", Align::right}});
  for (const facts::WrongVerdict& wrong : validation.verdicts) {
    const bool ram = wrong.quantity == "fits_ram";
    table.add({shortened(printable(wrong.id), limits.id),
               std::string(wrong.measured ? "did fit" : "did not fit") + (ram ? " (RAM)" : ""),
               wrong.filled ? percent(*wrong.filled) : "unknown"});
  }
  return table;
}

TextTable impossible_table(const facts::Validation& validation, const TableLimits& limits) {
  TextTable table({{"case"}, {"measured", Align::right}, {"why it cannot be"}});
  for (const facts::Comparison& one : validation.cases) {
    if (one.impossible.empty()) continue;
    table.add({shortened(printable(one.id), limits.id),
               figure(one.quantity, one.group, one.measured),
               shortened(printable(one.impossible), limits.reason)});
  }
  return table;
}

std::string some_of(const std::vector<std::string>& ids, std::size_t most) {
  std::string text;
  for (std::size_t i = 0; i < ids.size() && i < most; ++i) {
    text += (i == 0 ? "" : ", ") + printable(ids[i]);
  }
  return text;
}

TextTable unsupported_table(const facts::Validation& validation, const TableLimits& limits) {
  using Reason = std::pair<std::string, std::vector<std::string>>;
  std::map<std::string, std::vector<std::string>> by_reason;
  for (const facts::UnsupportedCase& unsupported : validation.unsupported) {
    const std::string& reason = unsupported.reason;  // the hint below it is for one job's writer
    by_reason[reason.substr(0, reason.find('\n'))].push_back(unsupported.id);
  }
  std::vector<Reason> order(by_reason.begin(), by_reason.end());
  std::stable_sort(order.begin(), order.end(), [](const Reason& a, const Reason& b) {
    return a.second.size() > b.second.size();
  });
  TextTable table({{"cases", Align::right}, {"reason"}, {"for example"}});
  std::size_t left_out = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto& [reason, ids] = order[i];
    if (i >= limits.reasons) {
      left_out += ids.size();
      continue;
    }
    table.add({grouped(static_cast<std::int64_t>(ids.size())),
               shortened(printable(reason), limits.reason),
               shortened(some_of(ids, limits.examples), limits.id)});
  }
  if (left_out > 0) {
    table.add({grouped(static_cast<std::int64_t>(left_out)),
               fmt::format("{} further reasons: see --json or --markdown",
                           order.size() - limits.reasons)});
  }
  return table;
}

TextTable outside_table(const facts::Validation& validation, const TableLimits& limits) {
  TextTable table({{"quantity"},
                   {"figures", Align::right},
                   {"worst", Align::right},
                   {"reason found"},
                   {"for example"}});
  for (const facts::Outside& group : validation.outside) {
    const std::string reason = group.reason.empty() ? "none yet" : printable(group.reason);
    table.add({std::string(name_of(group.group)), grouped(group.figures),
               signed_percent(group.worst), shortened(reason, limits.reason),
               shortened(some_of(group.cases, limits.examples), limits.id)});
  }
  return table;
}

}  // namespace

ValidationTables validation_tables(const facts::Validation& validation, const TableLimits& limits) {
  return {.overall = overall_table(validation),
          .sources = sources_table(validation),
          .worst = worst_table(validation, limits),
          .fits = fits_table(validation.fits),
          .verdicts = verdicts_table(validation, limits),
          .impossible = impossible_table(validation, limits),
          .outside = outside_table(validation, limits),
          .unsupported = unsupported_table(validation, limits)};
}

std::string validation_headline(const facts::Validation& validation) {
  std::set<std::pair<std::string, std::string>> compared;
  for (const facts::Comparison& c : validation.cases) compared.insert({c.source, c.id});
  // A planned case whose plan lacks the measured quantity is listed as "quantity: the plan ...".
  const auto lacking = std::count_if(validation.unsupported.begin(), validation.unsupported.end(),
                                     [](const facts::UnsupportedCase& c) {
                                       return c.reason.find(": the plan ") != std::string::npos;
                                     });
  const auto all = static_cast<std::int64_t>(validation.unsupported.size());
  return fmt::format(
      "{} figures of {} cases compared; {} cases could not be planned and {} figures are not in "
      "their plan: these count as failures.",
      grouped(static_cast<std::int64_t>(validation.cases.size())),
      grouped(static_cast<std::int64_t>(compared.size())), grouped(all - lacking),
      grouped(lacking));
}

}  // namespace steelyard::report
