// The first header of the room: predictions against measurements. Pure: the caller plans.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"
#include "facts/cases.h"
#include "facts/plan.h"

namespace steelyard::validate {

struct Selection {
  std::optional<facts::QuantityGroup> only;
  std::string source;      // empty: all
  std::string confidence;  // empty: all
};

using Planner = std::function<Result<facts::Plan>(const facts::Case&)>;

// Plans every selected case and compares. A case that cannot be planned is listed with its reason
// and counted, never skipped in silence.
[[nodiscard]] facts::Validation compare(std::span<const facts::CaseFile> files,
                                        const Selection& selection, const Planner& planner);

}  // namespace steelyard::validate
