// The mission's question: the host memory that each GPU needs, for a mix of jobs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "facts/ratio.h"
#include "share/planner.h"

namespace steelyard::share {

struct MixMember {
  facts::Job job{};  // as read
  double weight = 1.0;
  Planner planner{};
};

struct RatioQuestion {
  std::string mix{}, about{};
  std::optional<facts::RuleOfThumb> rule{};  // of the tier; none: that of each job on each card
  std::vector<MixMember> jobs{};
  std::vector<facts::Gpu> gpus{};          // kinds of GPU; those of unknown memory are left out
  std::vector<facts::Machine> machines{};  // to judge
};

// GPUs per node where a job does not say.
constexpr std::int64_t kUsualGpus = 8;

// Every job on every kind of GPU, and what machines have against what they need. The order of the
// answer does not depend on the number of threads. docs/ratio.md
[[nodiscard]] facts::MixRatio ratio(const RatioQuestion& question);

}  // namespace steelyard::share
