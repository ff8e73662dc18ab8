// What jobs of one server take from each other besides GPUs: page cache, storage, cores and the way
// from the GPUs to the host.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "facts/share.h"
#include "share/place.h"
#include "share/planner.h"

namespace steelyard::share {

// A job with the machine to itself, and how to plan it with less.
struct Guest {
  facts::Job job{};  // on the machine, its loader processes as they are alone
  std::string file{};
  Planner planner{};
  facts::Plan alone{};
};

// The least share of a resource with which a job is as fast as alone, up to kSame.
struct Wants {
  double storage = 0.0, uplink = 0.0;  // of the machine's rate
  std::int64_t cores = 0;
};

// A step that is longer by less than this is the same: nobody would measure it.
constexpr double kSame = 0.005;

// The machine with a part of what it has.
struct Part {
  std::optional<Bytes> memory{};  // of the host
  double storage = 1.0;           // of the rates of the storage that holds the job's data
  std::optional<std::int64_t> cores{};
  double uplink = 1.0;      // of the link from a GPU to the host
  double arithmetic = 1.0;  // of a GPU
  double bandwidth = 1.0;   // of a GPU's memory
};
[[nodiscard]] facts::Machine with_part(const facts::Machine& machine, const facts::Job& job,
                                       const Part& part);

[[nodiscard]] std::string storage_of(const facts::Job& job);
[[nodiscard]] std::optional<std::int64_t> cores_of(const facts::Machine& machine);

// Each found by bisection with the planner. `cache`: the host memory that the job has together with
// the others; none: as alone.
[[nodiscard]] Wants wants_of(const Guest& guest, const facts::Machine& machine,
                             const std::optional<Bytes>& cache);

}  // namespace steelyard::share
