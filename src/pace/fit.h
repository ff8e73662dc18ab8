// Fits the free constants of the pace to measured steps: bounded, held near where they start, by
// damped least squares of log(predicted / measured) with a loss that outliers do not rule.
// docs/model/compute.md, "Calibration".
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"
#include "facts/constants.h"
#include "pace/pace.h"

namespace steelyard::pace {

struct Observation {
  Request request;  // its `efficiency` is not read
  Seconds measured;
  std::string source;   // sources count alike, however many cases they have
  double weight = 1.0;  // how sure one is of what was measured
};

// One fitted number: the keys that lead to it in pace.toml ("architecture", "hopper",
// "gemm_ratio"), and what it is.
struct FittedConstant {
  std::vector<std::string> path;
  double start = 0.0, value = 0.0;
};

struct Fit {
  std::vector<FittedConstant> constants;
  facts::EfficiencyConstants efficiency;
};

// `efficiency` is where the constants start.
[[nodiscard]] Result<Fit> fit(std::span<const Observation> observations,
                              const facts::EfficiencyConstants& efficiency);

// log(predicted / measured) of each step.
[[nodiscard]] Result<std::vector<double>> residuals(std::span<const Observation> observations,
                                                    const facts::EfficiencyConstants& efficiency);

}  // namespace steelyard::pace
