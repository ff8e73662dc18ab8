#include "rehearse/summary.h"

#include <algorithm>
#include <array>

namespace steelyard::rehearse {
namespace {

std::optional<SamplesPerSecond> can(std::int64_t done, std::int64_t threads, Nanoseconds busy) {
  if (done == 0 || busy <= 0) return std::nullopt;
  return SamplesPerSecond(static_cast<double>(done * threads) / seconds(busy).value());
}

facts::RehearsalStage stage_of(const char* name, const StageTime& time, std::int64_t side_by_side) {
  return {.name = name,
          .threads = time.threads(),
          .can = can(time.done(), side_by_side, time.busy()),
          .busy = seconds(time.busy()),
          .waits_for_data = seconds(time.waited_for_data()),
          .waits_for_room = seconds(time.waited_for_room()),
          .cpu = seconds(time.cpu())};
}

facts::RehearsalStage accelerator_stage(const Measured& measured) {
  facts::RehearsalStage stage{.name = "accelerator",
                              .threads = measured.settings.accelerators,
                              .can = {},
                              .busy = {},
                              .waits_for_data = {},
                              .waits_for_room = {},
                              .cpu = seconds(measured.accelerator.cpu())};
  for (const AcceleratorTime& one : measured.accelerators) {
    stage.busy += seconds(one.computed());
    stage.waits_for_data += seconds(one.waited());
  }
  const double step = measured.settings.step_time.value();
  if (step > 0) {
    stage.can = SamplesPerSecond(
        static_cast<double>(measured.settings.accelerators * measured.settings.batch) / step);
  }
  return stage;
}

// The stage that can do least, where accelerators wait at all.
std::string limit_of(const facts::Rehearsal& rehearsal) {
  constexpr double kNeverShort = 0.99;
  if (rehearsal.utilization_least && rehearsal.utilization_least->value() >= kNeverShort) return {};
  const facts::RehearsalStage* least = nullptr;
  for (const facts::RehearsalStage& stage : rehearsal.stages) {
    if (stage.name == "accelerator" || !stage.can) continue;
    if (least == nullptr || *stage.can < *least->can) least = &stage;
  }
  return least == nullptr ? std::string() : least->name;
}

void add_memory(const Measured& measured, facts::RehearsalMemory& memory) {
  const Ledger& ledger = measured.ledger;
  memory = {.index = ledger.most(Kind::index),
            .read_buffers = ledger.most(Kind::read_buffers),
            .batches = ledger.most(Kind::batches),
            .decoding = ledger.most(Kind::decoding),
            .needed = measured.forecast.total(),
            .peak = measured.peak.anonymous,
            .page_cache = measured.peak.group_page_cache,
            .group_peak = measured.peak.group_used,
            .limit = measured.forecast.limit};
}

void raise(std::optional<Bytes>& most, const std::optional<Bytes>& now) {
  if (now && (!most || *now > *most)) most = now;
}

}  // namespace

void MemoryPeak::add(const MemoryNow& now) {
  anonymous = std::max(anonymous, now.anonymous.value_or(Bytes(0)));
  raise(group_page_cache, now.group_page_cache);
  raise(group_used, now.group_used);
}

SamplesPerSecond rate_of(std::span<const AcceleratorTime> accelerators, std::int64_t batch) {
  double rate = 0;
  for (const AcceleratorTime& one : accelerators) {
    if (one.steps() < 2 || one.steady() <= 0) continue;
    rate += static_cast<double>((one.steps() - 1) * batch) / seconds(one.steady()).value();
  }
  return SamplesPerSecond(rate);
}

std::optional<Ratio> least_utilization(std::span<const AcceleratorTime> accelerators) {
  std::optional<Ratio> least;
  for (const AcceleratorTime& one : accelerators) {
    if (one.steps() < 2) return std::nullopt;
    const Ratio used = utilization(one.summed());
    if (!least || used < *least) least = used;
  }
  return least;
}

std::optional<Ratio> mean_utilization(std::span<const AcceleratorTime> accelerators) {
  Ratio sum;
  for (const AcceleratorTime& one : accelerators) {
    if (one.steps() < 2) return std::nullopt;
    sum += utilization(one.summed());
  }
  return sum / static_cast<double>(accelerators.size());
}

facts::Rehearsal summary(const Measured& measured) {
  const Settings& settings = measured.settings;
  const Dataset& dataset = measured.dataset;
  facts::Rehearsal rehearsal;
  rehearsal.setting.format = dataset.format;
  rehearsal.setting.records = static_cast<std::int64_t>(dataset.records.size());
  rehearsal.setting.bytes = dataset.total;
  rehearsal.setting.accelerators = settings.accelerators;
  rehearsal.setting.batch = settings.batch;
  rehearsal.setting.workers = settings.workers;
  rehearsal.setting.prefetch = settings.prefetch;
  rehearsal.setting.step_time = settings.step_time;
  rehearsal.elapsed = measured.elapsed;
  rehearsal.samples = Samples(measured.samples);
  rehearsal.epochs = measured.epochs;
  rehearsal.rate = rate_of(measured.accelerators, settings.batch);
  rehearsal.read_rate = Bytes(measured.read.bytes()) / measured.elapsed;
  if (settings.step_time.value() > 0) {
    rehearsal.utilization_least = least_utilization(measured.accelerators);
    rehearsal.utilization_mean = mean_utilization(measured.accelerators);
  }
  // The reading threads of one ring are one; reading threads side by side are several.
  rehearsal.stages = {
      stage_of("read", measured.read, std::max<std::int64_t>(1, measured.read.threads())),
      stage_of("decode", measured.work, settings.workers), accelerator_stage(measured)};
  rehearsal.limited_by = limit_of(rehearsal);
  add_memory(measured, rehearsal.memory);
  return rehearsal;
}

facts::RehearsalCrew crew_of(const Measured& measured, const Crew& crew, const OwnWaits& waits) {
  const AcceleratorTime& one = measured.accelerators.front();
  facts::RehearsalRank rank{.rank = static_cast<std::int64_t>(crew.rank()),
                            .host = crew.host(),
                            .accelerators = measured.settings.accelerators,
                            .alone = {},
                            .waits_for_data = seconds(waits.for_data),
                            .waits_for_others = seconds(waits.for_others),
                            .last = waits.last,
                            .needed = measured.forecast.total(),
                            .peak = measured.peak.anonymous};
  if (one.steps() > 1 && measured.settings.step_time.value() > 0) {
    const std::array<Step, 2> steps{Step{}, Step{.waited = rank.waits_for_data,
                                                 .computed = measured.settings.step_time *
                                                             static_cast<double>(one.steps() - 1)}};
    rank.alone = utilization(steps);
  }
  return {.hosts = 1, .steps = one.steps(), .slowest = {}, .ranks = {std::move(rank)}};
}

}  // namespace steelyard::rehearse
