#include "cli/rehearsal_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/format.h"
#include "cli/measured_data.h"
#include "feed/feed.h"
#include "rehearse/worker.h"

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

Result<rehearse::Settings> settings_of(const facts::Plan& plan, bool step_needed) {
  if (step_needed && (!plan.pace.step || !plan.pace.samples)) {
    return fail({.code = ErrorCode::missing_value,
                 .subject = "the plan's step time",
                 .found = fmt::format("unknown: {}", fmt::join(plan.pace.missing, ", ")),
                 .accepted = "a machine whose figures are known, or --step-time SECONDS"});
  }
  rehearse::Settings settings;
  settings.accelerators = gpus_of(plan);
  settings.batch = std::max<std::int64_t>(1, plan.job.train.micro_batch.value_or(1));
  if (plan.pace.step && plan.pace.samples) {
    const double gpus = static_cast<double>(gpus_of(plan) * plan.job.machine.nodes);
    const double batch = plan.pace.samples->value() * plan.pace.step->value() / gpus;
    settings.batch = std::max<std::int64_t>(1, checked_round(batch));
    settings.step_time = *plan.pace.step - plan.pace.breakdown.data_stall;
  }
  settings.workers =
      std::max<std::int64_t>(1, plan.job.data.workers.value_or(1) * settings.accelerators);
  settings.prefetch = std::max<std::int64_t>(1, plan.job.data.prefetch);
  const auto& size = plan.job.train.image_size;
  if (size.size() == 2 && size[0] == size[1]) settings.shape.side = static_cast<int>(size[0]);
  return settings;
}

Result<EnginePlan> engine_plan(const facts::Plan& plan, const facts::HostConstants& constants,
                               const rehearse::Dataset& dataset,
                               const rehearse::Settings& settings) {
  facts::Job job = plan.job;
  measure_data(dataset, true, job);
  job.data.loader = constants.loader->name;
  // Workers of a job are those of one accelerator.
  job.data.workers = ceil_divide(settings.workers, settings.accelerators);
  job.data.prefetch = settings.prefetch;
  job.data.cache = settings.direct ? facts::DataCache::none : facts::DataCache::page;
  job.data.decode_seconds.reset();
  job.train.micro_batch = settings.batch;
  job.train.image_size = {settings.shape.side, settings.shape.side};
  job.machine.gpus = settings.accelerators;
  job.parallel = {};
  EnginePlan engine;
  const auto sample =
      Bytes(static_cast<std::int64_t>(rehearse::sample_bytes_of(dataset, settings.shape)));
  engine.memory = ram::loader_memory(*constants.loader, job, sample);
  feed::Request request{.job = &job,
                        .machine = &plan.machine,
                        .constants = &constants,
                        .sample_bytes = sample,
                        .needed_per_node = {},
                        .free_for_page_cache = {}};
  if (settings.step_time.value() > 0.0) {
    request.needed_per_node = SamplesPerSecond(
        static_cast<double>(settings.accelerators * settings.batch) / settings.step_time.value());
  }
  if (plan.machine.host.memory) {
    request.free_for_page_cache =
        std::max(Bytes(), *plan.machine.host.memory - constants.system - engine.memory.total());
  }
  STEELYARD_TRY(feed, feed::data_path(request));
  engine.feed = std::move(feed);
  return engine;
}

void put_beside(const facts::Plan& plan, const EnginePlan& engine, facts::Rehearsal& rehearsal) {
  const double nodes = static_cast<double>(plan.job.machine.nodes);
  facts::RehearsalPlanned planned;
  planned.supply = engine.feed.supply;
  planned.samples = planned.supply;
  const double step = rehearsal.setting.step_time.value();
  if (step > 0.0) {
    planned.step = rehearsal.setting.step_time;
    const SamplesPerSecond most(
        static_cast<double>(rehearsal.setting.accelerators * rehearsal.setting.batch) / step);
    planned.samples = planned.supply ? std::min(*planned.supply, most) : most;
    planned.utilization = engine.feed.accelerator_utilization;
  }
  planned.limited_by = engine.feed.limited_by;
  planned.workers_enough = engine.feed.workers_enough;
  planned.index = engine.memory.index;
  planned.read_buffers = engine.memory.read_buffers;
  planned.batches = engine.memory.batches;
  planned.decoding = engine.memory.threads;
  planned.peak = engine.memory.total();
  planned.machine = plan.machine.id;
  planned.job_ram = plan.ram.peak;
  if (plan.feed.supply) planned.job_supply = *plan.feed.supply;
  std::string own = fmt::format(
      "the job itself, with the loader of {}, is planned at {} of host memory on a node",
      plan.job.framework, to_text(plan.ram.peak));
  if (plan.pace.samples) own += fmt::format(" and {}", to_text(*plan.pace.samples / nodes));
  if (plan.feed.accelerator_utilization) {
    own += fmt::format(", its GPUs busy {:.1f} % of the time",
                       100.0 * plan.feed.accelerator_utilization->value());
  }
  rehearsal.notes.push_back(own);
  rehearsal.planned = std::move(planned);
  for (facts::RehearsalStage& stage : rehearsal.stages) {
    if (stage.name == "read") stage.planned = least_of(engine.feed, {"storage", "read"});
    if (stage.name == "decode") stage.planned = least_of(engine.feed, {"decode"});
  }
}

}  // namespace steelyard::cli
