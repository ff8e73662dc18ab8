// What came out when the data path was really run: `steelyard rehearse`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/enums.h"

namespace steelyard::facts {

enum class FaultKind { corrupt, truncated, vanished, read_error };
STEELYARD_ENUM_NAMES(FaultKind, "corrupt", "truncated", "vanished", "read_error")
constexpr std::size_t kFaultKinds = EnumNames<FaultKind>::values.size();

struct RehearsalFault {
  FaultKind kind = FaultKind::corrupt;
  std::int64_t count = 0;
  std::vector<std::string> first;  // "file: what is wrong", the first few
};

enum class RehearsalEnd { time, signal, fault, samples };
STEELYARD_ENUM_NAMES(RehearsalEnd, "time", "signal", "fault", "samples")

// What was run.
struct RehearsalSetting {
  std::string data;    // the folder or file
  std::string format;  // "images", "tar", ...
  std::int64_t records = 0;
  Bytes bytes;  // of all records, as stored
  std::int64_t accelerators = 1, batch = 1, workers = 1;
  std::int64_t prefetch = 1;    // batches ahead per accelerator
  Seconds step_time;            // 0: accelerators take what comes
  bool direct = false;          // past the page cache
  std::string reader;           // "io_uring" or "threads"
  std::int64_t read_depth = 0;  // most requests under way at once, as adapted
};

struct RehearsalStage {
  std::string name;  // read | decode | accelerator
  std::int64_t threads = 0;
  std::optional<SamplesPerSecond> can;  // at its busy time; unknown when it was never busy
  // Sums over its threads.
  Seconds busy, waits_for_data, waits_for_room, cpu;
  std::optional<SamplesPerSecond> planned{};
};

struct RehearsalMemory {
  Bytes index, read_buffers, batches, decoding;  // own buffers, the most of each
  Bytes needed;                                  // told before the start, of the whole process
  Bytes peak;                                    // anonymous memory of the process, the most
  std::optional<Bytes> page_cache;               // of the group, the most; unknown without one
  std::optional<Bytes> group_peak;               // of everything in the control group
  std::optional<Bytes> limit;                    // the least that binds
};

// What the plan of the job says of the same figures.
struct RehearsalPlanned {
  std::optional<SamplesPerSecond> samples;
  std::optional<Ratio> utilization;
  std::optional<Seconds> step;
  std::string limited_by;
  std::optional<std::int64_t> workers_enough;
  // Of this engine on the job's machine, accelerators that take what comes; memory by kind.
  std::optional<SamplesPerSecond> supply{};
  std::optional<Bytes> index{}, read_buffers{}, batches{}, decoding{}, peak{};
  std::string machine{};           // whose figures these are
  std::optional<Bytes> job_ram{};  // host memory of the job itself, its own loaders included
  std::optional<SamplesPerSecond> job_supply{};
};

// One short rehearsal on the way to the least that is enough.
struct RehearsalTry {
  std::int64_t workers = 1, prefetch = 1, depth = 1;
  std::optional<Ratio> utilization;  // of the least used accelerator
  Bytes needed;                      // memory, as told before it started
  bool enough = false;
};

struct RehearsalTuning {
  Ratio target;
  bool reached = false;
  std::vector<RehearsalTry> tries;  // in their order
};

// One process of a synchronous job.
struct RehearsalRank {
  std::int64_t rank = 0;
  std::string host;
  std::int64_t accelerators = 1;
  std::optional<Ratio> alone;  // accelerators used, if it waited for its own data only
  Seconds waits_for_data;      // its own, without the first step
  Seconds waits_for_others;    // with its data there
  std::int64_t last = 0;       // steps for which all waited for it
  Bytes needed, peak;          // memory of the process, told and measured
};

// Several processes that took their steps together.
struct RehearsalCrew {
  std::int64_t hosts = 1;
  std::int64_t steps = 0;                 // of each process
  std::optional<std::int64_t> slowest{};  // whose data came latest in sum; nobody's: none
  std::vector<RehearsalRank> ranks;
};

// A real accelerator that batches were copied to.
struct RehearsalDevice {
  std::int64_t accelerator = 0;  // from 0, through all processes
  std::string name;              // as the driver says
  std::string pci;
  std::optional<std::int64_t> numa_node{};  // that it is near to, where its batches lie
  std::int64_t copies = 0;
  Bytes bytes;                           // copied
  Seconds copying;                       // by the device's own clock, sum over the copies
  std::optional<BytesPerSecond> rate{};  // while it copied
};

// What the kernel gave to memory requests while it ran, all programs of the machine.
struct RehearsalNode {
  std::int64_t node = 0;
  Bytes local;   // on this node to threads that ran on it
  Bytes remote;  // on this node to threads that ran on another
  Bytes missed;  // on another although this was preferred
};

struct Rehearsal {
  RehearsalSetting setting;
  RehearsalEnd end = RehearsalEnd::time;
  Seconds elapsed;
  Samples samples;  // that reached accelerators
  double epochs = 0;
  SamplesPerSecond rate;     // after each accelerator's first step
  BytesPerSecond read_rate;  // of what was read from files
  // MLPerf Storage's, the first step excluded; unknown without a step time or a second step.
  std::optional<Ratio> utilization_mean, utilization_least;
  std::string limited_by;  // a stage's name; empty when accelerators are never short
  std::vector<RehearsalStage> stages;
  RehearsalMemory memory;
  std::vector<RehearsalFault> faults;
  std::vector<std::string> notes;
  std::optional<RehearsalPlanned> planned{};
  std::optional<RehearsalTuning> tuning{};
  std::optional<RehearsalCrew> crew{};
  std::vector<RehearsalDevice> devices{};  // empty: accelerators were paced
  std::vector<RehearsalNode> nodes{};      // NUMA; empty where the kernel does not tell
};

}  // namespace steelyard::facts
