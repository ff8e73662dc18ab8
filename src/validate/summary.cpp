#include "validate/summary.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>

namespace steelyard::validate {
namespace {

// Errors that belong to one row of the table.
struct Row {
  facts::ErrorSummary head;
  std::vector<double> errors;
};

facts::ErrorSummary finished(Row row) {
  std::vector<double> absolute;
  absolute.reserve(row.errors.size());
  for (const double error : row.errors) absolute.push_back(std::abs(error));
  row.head.cases = static_cast<std::int64_t>(row.errors.size());
  row.head.median_absolute_error = Ratio(median(absolute));
  row.head.p90_absolute_error = Ratio(percentile(absolute, 90.0));
  row.head.bias = Ratio(median(std::move(row.errors)));
  return row.head;
}

template <class Head>
std::vector<facts::ErrorSummary> rows(std::span<const facts::Comparison> comparisons, Head head) {
  std::vector<Row> found;
  for (const facts::Comparison& comparison : comparisons) {
    if (!comparison.impossible.empty()) continue;
    const facts::ErrorSummary key = head(comparison);
    auto row = std::find_if(found.begin(), found.end(), [&](const Row& other) {
      return other.head.source == key.source && other.head.group == key.group &&
             other.head.confidence == key.confidence;
    });
    if (row == found.end()) row = found.insert(found.end(), Row{key, {}});
    row->errors.push_back(comparison.error.value());
  }
  std::vector<facts::ErrorSummary> summaries;
  for (Row& row : found) summaries.push_back(finished(std::move(row)));
  return summaries;
}

}  // namespace

double median(std::vector<double> values) {
  assert(!values.empty());
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2.0;
}

double percentile(std::vector<double> values, double percent) {
  assert(!values.empty() && percent > 0.0 && percent <= 100.0);
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(percent * static_cast<double>(values.size()) / 100.0);
  return values[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

std::vector<facts::ErrorSummary> summarize(std::span<const facts::Comparison> comparisons) {
  return rows(comparisons, [](const facts::Comparison& comparison) {
    facts::ErrorSummary head;
    head.source = comparison.source;
    head.group = comparison.group;
    head.confidence = comparison.confidence;
    return head;
  });
}

std::vector<facts::ErrorSummary> summarize_overall(std::span<const facts::Comparison> comparisons) {
  return rows(comparisons, [](const facts::Comparison& comparison) {
    facts::ErrorSummary head;
    head.group = comparison.group;
    return head;
  });
}

}  // namespace steelyard::validate
