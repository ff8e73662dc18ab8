#include "plan/confidence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "plan/plan.h"

namespace steelyard::plan {
namespace {

using facts::ConfidenceOf;
using facts::Evidence;
using facts::Likeness;
using facts::QuantityGroup;

// Beyond it a case is not near; as many of the nearest are read.
constexpr double kNear = 2.0;
constexpr std::size_t kMostCases = 40;
// Fewer say little: the figures count as extrapolated.
constexpr std::size_t kLeastCases = 3;

// What a difference counts. Memory of a GPU follows from framework and layout, hardly from the
// card; pace from the card first; host memory from the framework and how many ranks there are.
struct Weights {
  double family, architecture, framework, method, precision, sharding, recompute, axis;
  double gpus, parameters;  // for each factor of ten
};

Weights weights_of(QuantityGroup group) {
  switch (group) {
    case QuantityGroup::vram: return {1.0, 0.25, 2.0, 1.0, 0.5, 1.0, 0.5, 0.75, 0.25, 0.5};
    case QuantityGroup::ram: return {0.5, 0.0, 2.0, 1.0, 0.25, 1.0, 0.25, 0.25, 0.5, 0.75};
    case QuantityGroup::pace:
    case QuantityGroup::feed: break;
  }
  return {1.0, 1.5, 1.5, 1.0, 1.0, 0.75, 0.5, 0.5, 0.5, 0.5};
}

double decades(double a, double b) {
  return a > 0.0 && b > 0.0 ? std::abs(std::log10(a / b)) : 0.0;
}

bool differ(std::int64_t a, std::int64_t b) {
  return (a > 1) != (b > 1);
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2.0;
}

std::string names_of(const std::set<std::string>& names) {
  constexpr std::size_t kMost = 3;
  std::string text;
  std::size_t shown = 0;
  for (const std::string& name : names) {
    if (name.empty()) continue;
    if (shown++ == kMost) return text + " ...";
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

// "llama on hopper with torchtitan, 8 to 64 GPUs"
std::string note_of(const std::vector<std::pair<double, const Evidence*>>& near) {
  std::set<std::string> families, architectures, frameworks;
  std::int64_t least = near.front().second->of.gpus, most = least;
  for (const auto& [far, one] : near) {
    families.insert(one->of.family);
    architectures.insert(one->of.architecture);
    frameworks.insert(one->of.framework);
    least = std::min(least, one->of.gpus);
    most = std::max(most, one->of.gpus);
  }
  const std::string gpus = least == most ? fmt::format("{} GPU{}", least, least == 1 ? "" : "s")
                                         : fmt::format("{} to {} GPUs", least, most);
  return fmt::format("measured: {} on {} with {}, {}", names_of(families), names_of(architectures),
                     names_of(frameworks), gpus);
}

}  // namespace

double distance(QuantityGroup group, const Likeness& a, const Likeness& b) {
  const Weights w = weights_of(group);
  double sum = 0.0;
  sum += a.family != b.family ? w.family : 0.0;
  sum += a.architecture != b.architecture ? w.architecture : 0.0;
  // A process without a card has nothing of what a driver and its libraries hold in it.
  const bool one_without_card = a.architecture.empty() != b.architecture.empty();
  if (group == QuantityGroup::ram && one_without_card) sum += 2.0 * kNear;
  sum += a.framework != b.framework ? w.framework : 0.0;
  sum += a.method != b.method ? w.method : 0.0;
  sum += a.precision != b.precision ? w.precision : 0.0;
  sum += a.sharding != b.sharding ? w.sharding : 0.0;
  sum += a.recompute != b.recompute ? w.recompute : 0.0;
  for (const bool other : {differ(a.tensor, b.tensor), differ(a.pipeline, b.pipeline),
                           differ(a.context, b.context), differ(a.expert, b.expert)}) {
    sum += other ? w.axis : 0.0;
  }
  sum += w.gpus * decades(static_cast<double>(a.gpus), static_cast<double>(b.gpus));
  return sum + w.parameters * decades(a.parameters, b.parameters);
}

ConfidenceOf confidence_of(QuantityGroup group, const Likeness& job,
                           std::span<const Evidence> evidence) {
  std::vector<std::pair<double, const Evidence*>> near;
  for (const Evidence& one : evidence) {
    if (one.group != group) continue;
    const double far = distance(group, job, one.of);
    if (far <= kNear) near.emplace_back(far, &one);
  }
  ConfidenceOf confidence;
  if (near.size() < kLeastCases) {
    confidence.note = "extrapolated: no measured case is near this job";
    return confidence;
  }
  std::stable_sort(near.begin(), near.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  near.resize(std::min(near.size(), kMostCases));
  std::vector<double> errors;
  for (const auto& [far, one] : near) errors.push_back(std::abs(one->error.value()));
  confidence.cases = std::ssize(errors);
  confidence.note = note_of(near);
  std::ranges::sort(errors);
  const auto ninth = static_cast<std::size_t>(0.9 * static_cast<double>(errors.size() - 1));
  confidence.p90_absolute_error = Ratio(errors[ninth]);
  confidence.median_absolute_error = Ratio(median_of(std::move(errors)));
  return confidence;
}

Likeness likeness_of(const facts::Plan& plan) {
  const facts::Job& job = plan.job;
  Likeness likeness;
  likeness.family = plan.model.type;
  likeness.architecture = plan.machine.gpu.architecture;
  likeness.framework = job.framework;
  likeness.method = facts::name_of(job.train.method);
  likeness.precision = facts::name_of(job.train.precision);
  likeness.sharding = facts::name_of(job.parallel.sharding);
  likeness.recompute = facts::name_of(job.train.recompute.mode);
  likeness.tensor = job.parallel.tensor;
  likeness.pipeline = job.parallel.pipeline;
  likeness.context = job.parallel.context;
  likeness.expert = job.parallel.expert;
  likeness.gpus = job.machine.nodes * job.machine.gpus.value_or(plan.machine.gpus);
  likeness.parameters = plan.model.parameters.real();
  return likeness;
}

}  // namespace steelyard::plan
