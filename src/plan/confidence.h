// How far the figures of a job are to be trusted: the errors seen on the measured cases that are
// most like it. docs/model/confidence.md
#pragma once

#include <span>

#include "facts/evidence.h"
#include "facts/plan.h"

namespace steelyard::plan {

// How unlike two jobs are for a group of figures: 0 for the same, about 1 for each thing that
// changes what the figures are made of.
[[nodiscard]] double distance(facts::QuantityGroup group, const facts::Likeness& a,
                              const facts::Likeness& b);

// The median of the absolute errors of the nearest cases, and how many they are. No case near:
// nothing, and the note says that the figures are extrapolated.
[[nodiscard]] facts::ConfidenceOf confidence_of(facts::QuantityGroup group,
                                                const facts::Likeness& job,
                                                std::span<const facts::Evidence> evidence);

}  // namespace steelyard::plan
