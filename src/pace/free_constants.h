// The constants that a fit may move: where they are, their bounds, how freely they move.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "facts/constants.h"

namespace steelyard::pace {

struct FreeConstant {
  std::vector<std::string> path;  // in pace.toml
  std::function<double(const facts::EfficiencyConstants&)> get;
  std::function<void(facts::EfficiencyConstants&, double)> set;
  double low = 0.0, high = 1.0;
  double spread = 0.1;  // of its logarithm: how sure one is of where it starts
  // Whether it has a say in steps on GPUs of that architecture.
  std::function<bool(const std::string&)> concerns = [](const std::string&) { return true; };
};

[[nodiscard]] std::vector<FreeConstant> free_constants(
    const facts::EfficiencyConstants& efficiency);

}  // namespace steelyard::pace
