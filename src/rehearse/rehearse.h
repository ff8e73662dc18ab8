// The first header of the room: really runs the data path of a training job. Records are read,
// decoded and put together to batches, and accelerators take them at their pace.
//
//   order -> read (io_uring, or threads) -> decode (threads) -> batches -> accelerators
//
// Every arrow is a fixed number of buffers: memory does not depend on the size of the data set, and
// who finds no room waits.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>

#include "base/error.h"
#include "base/quantity.h"
#include "facts/rehearsal.h"
#include "rehearse/crew.h"
#include "rehearse/cuda_devices.h"
#include "rehearse/dataset.h"
#include "rehearse/image/sample_maker.h"

namespace steelyard::rehearse {

struct Settings {
  std::int64_t accelerators = 1;
  std::int64_t batch = 32;    // samples of one accelerator's step
  std::int64_t workers = 1;   // decoding threads
  std::int64_t prefetch = 2;  // batches ahead per accelerator
  Seconds step_time{};        // 0: accelerators take what comes
  Seconds duration = Seconds(10);
  std::optional<std::int64_t> most_samples{};  // that accelerators take; then it ends
  bool direct = false;
  std::int64_t most_depth = 32;  // read requests under way at once
  SampleShape shape{};
  bool scaled_decode = true;
  bool shuffled = true;
  std::uint64_t seed = 0;
  bool skip_faults = false;             // else the first fault ends the rehearsal
  std::optional<Bytes> memory_limit{};  // besides those of the machine and the control group
  Seconds patience = Seconds(60);       // with a process of the crew that is silent
};

// What tests put in the way.
struct Injection {
  int ring_error = 0;                                         // errno of io_uring_setup
  std::function<int(std::uint64_t record)> read_error{};      // errno of a read; 0: none
  std::function<Seconds(std::uint64_t record)> read_delay{};  // of the reader, before it goes on
};

struct Progress {
  Seconds elapsed;
  Samples samples;
  SamplesPerSecond rate;
  std::optional<Ratio> utilization{};  // so far, of the least used accelerator
  std::int64_t faults = 0;
};
// Called about five times a second; false ends the rehearsal in order.
using Watcher = std::function<bool(const Progress&)>;

// What a rehearsal will take, before anything is taken.
struct Forecast {
  Bytes index, read_buffers, batches, decoding;
  Bytes program;               // what the process holds already, without the index
  std::optional<Bytes> limit;  // what it may have: the least of all limits
  std::string limited_by;      // whose limit that is
  [[nodiscard]] Bytes total() const { return index + read_buffers + batches + decoding + program; }
};

// Errors: impossible_combination (no records), bad_input (a setting out of range).
[[nodiscard]] Result<Forecast> forecast(const Dataset& dataset, const Settings& settings);

// What a rehearsal may have besides its own threads.
struct Partners {
  Crew* crew = nullptr;
  CudaDevices* devices = nullptr;  // as many as accelerators; none: these are paced
};

// With a crew it is one process of several: all call it, each reads its part of the records and
// begins each step with all others; what comes back is this process's own, with `crew` of one rank
// (rehearse/merge.h joins them). Settings that count steps or seconds are the same for all.
//
// Errors: those of forecast; too_large when the forecast is beyond the limit, or memory is refused;
// bad_input when a fault ended it and nothing was measured; those of a device; those of another
// process; unreadable when one is lost.
[[nodiscard]] Result<facts::Rehearsal> rehearse(const Dataset& dataset, const Settings& settings,
                                                const Watcher& watcher = {},
                                                const Injection& injection = {},
                                                const Partners& partners = {});

}  // namespace steelyard::rehearse
