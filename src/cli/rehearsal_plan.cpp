#include "cli/rehearsal_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace steelyard::cli {
namespace {

std::int64_t gpus_of(const facts::Plan& plan) {
  return std::max<std::int64_t>(1, plan.job.machine.gpus.value_or(plan.machine.gpus));
}

std::optional<SamplesPerSecond> least_of(const facts::FeedPlan& feed,
                                         std::initializer_list<std::string_view> names) {
  std::optional<SamplesPerSecond> least;
  for (const facts::FeedStage& stage : feed.stages) {
    const bool named = std::find(names.begin(), names.end(), stage.name) != names.end();
    if (named && stage.can && (!least || *stage.can < *least)) least = stage.can;
  }
  return least;
}

}  // namespace

Result<rehearse::Settings> settings_of(const facts::Plan& plan) {
  if (!plan.pace.step || !plan.pace.samples) {
    return fail({.code = ErrorCode::missing_value,
                 .subject = "the plan's step time",
                 .found = fmt::format("unknown: {}", fmt::join(plan.pace.missing, ", ")),
                 .accepted = "a machine whose figures are known, or --step-time SECONDS"});
  }
  const double gpus = static_cast<double>(gpus_of(plan) * plan.job.machine.nodes);
  const double batch = plan.pace.samples->value() * plan.pace.step->value() / gpus;
  rehearse::Settings settings;
  settings.accelerators = gpus_of(plan);
  settings.batch = std::max<std::int64_t>(1, checked_round(batch));
  settings.step_time = *plan.pace.step - plan.pace.breakdown.data_stall;
  settings.workers =
      std::max<std::int64_t>(1, plan.job.data.workers.value_or(1) * settings.accelerators);
  settings.prefetch = std::max<std::int64_t>(1, plan.job.data.prefetch);
  return settings;
}

void put_beside(const facts::Plan& plan, facts::Rehearsal& rehearsal) {
  const double nodes = static_cast<double>(plan.job.machine.nodes);
  facts::RehearsalPlanned planned;
  if (plan.pace.samples) planned.samples = *plan.pace.samples / nodes;
  if (plan.pace.step) planned.step = *plan.pace.step - plan.pace.breakdown.data_stall;
  planned.utilization = plan.feed.accelerator_utilization;
  planned.limited_by = plan.feed.limited_by;
  planned.workers_enough = plan.feed.workers_enough;
  rehearsal.planned = std::move(planned);
  for (facts::RehearsalStage& stage : rehearsal.stages) {
    if (stage.name == "read") stage.planned = least_of(plan.feed, {"storage", "read"});
    if (stage.name == "decode") stage.planned = least_of(plan.feed, {"decode"});
  }
}

}  // namespace steelyard::cli
