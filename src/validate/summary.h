// The statistics of many errors. All are of order, so that one wild case does not rule the table.
#pragma once

#include <span>
#include <vector>

#include "facts/cases.h"

namespace steelyard::validate {

// The middle value; the mean of the two middle ones when there is an even number. `values` not
// empty.
[[nodiscard]] double median(std::vector<double> values);

// Nearest rank: the smallest value that at least `percent` of all are not above. 0 < percent <=
// 100.
[[nodiscard]] double percentile(std::vector<double> values, double percent);

// Median and 90th percentile of the absolute error, and bias (the median of the signed error), by
// source, group and confidence in the order in which they first appear. Figures that are impossible
// are left out.
[[nodiscard]] std::vector<facts::ErrorSummary> summarize(
    std::span<const facts::Comparison> comparisons);

// The same over all sources: one row for each group that has a comparison.
[[nodiscard]] std::vector<facts::ErrorSummary> summarize_overall(
    std::span<const facts::Comparison> comparisons);

}  // namespace steelyard::validate
