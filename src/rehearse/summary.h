// From what the threads counted to the facts of a rehearsal; and what one will take, beforehand.
#pragma once

#include <span>

#include "facts/rehearsal.h"
#include "rehearse/conductor.h"
#include "rehearse/host_memory.h"
#include "rehearse/rehearse.h"

namespace steelyard::rehearse {

// The most of each, over a rehearsal.
struct MemoryPeak {
  Bytes anonymous;
  std::optional<Bytes> group_page_cache, group_used;
  void add(const MemoryNow& now);
};

struct Measured {
  const Dataset& dataset;
  const Settings& settings;
  const Forecast& forecast;
  const Ledger& ledger;
  const MemoryPeak& peak;
  const StageTime& read;
  const StageTime& work;
  const StageTime& accelerator;
  std::span<const AcceleratorTime> accelerators;
  Seconds elapsed;
  std::int64_t samples = 0;
  double epochs = 0;  // of what this process reads
};

[[nodiscard]] facts::Rehearsal summary(const Measured& measured);
// This process as the only rank of a crew.
[[nodiscard]] facts::RehearsalCrew crew_of(const Measured& measured, const Crew& crew,
                                           const OwnWaits& waits);

// Samples per second that accelerators took after the first step of each.
[[nodiscard]] SamplesPerSecond rate_of(std::span<const AcceleratorTime> accelerators,
                                       std::int64_t batch);
// Nothing until every accelerator has a second step behind it.
[[nodiscard]] std::optional<Ratio> least_utilization(std::span<const AcceleratorTime> accelerators);
[[nodiscard]] std::optional<Ratio> mean_utilization(std::span<const AcceleratorTime> accelerators);

// Whose limit it is when the user set it.
constexpr const char* kOwnLimit = "--memory-limit";

// The refusal of a need beyond a limit.
[[nodiscard]] Error beyond(Bytes need, Bytes limit, const std::string& whose);
// Whether the processes of each host fit together where each of them does. Errors: too_large, the
// same for all; those of the crew.
[[nodiscard]] Result<void> all_fit(Crew& crew, const Forecast& own, Seconds patience);

// How many buffers the settings mean.
[[nodiscard]] std::size_t slots_of(const Settings& settings);
[[nodiscard]] std::size_t batches_of(const Settings& settings);

}  // namespace steelyard::rehearse
