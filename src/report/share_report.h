// What `steelyard ratio` and `steelyard share` print. Computes no new number.
#pragma once

#include <string>

#include "facts/ratio.h"
#include "facts/share.h"
#include "report/report.h"

namespace steelyard::report {

// The mix job by job, the need on each kind of GPU, and machines by verdict, at most `most` of
// each.
[[nodiscard]] std::string ratio_text(const facts::MixRatio& ratio, const Style& style,
                                     std::size_t most = 8);
// A line for each job on each kind of GPU: bytes and ratios unrounded (RFC 4180).
[[nodiscard]] std::string ratio_csv(const facts::MixRatio& ratio);
// One HTML page that needs no network: the need as a chart beside the rule of thumb, and the
// tables.
[[nodiscard]] std::string ratio_page(const facts::MixRatio& ratio);

// Who sits where, what each loses beside the others and why, host memory by phase, what is shared,
// and which job to move.
[[nodiscard]] std::string share_text(const facts::SharePlan& plan, const Style& style);

}  // namespace steelyard::report
