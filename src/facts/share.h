// What `steelyard share` says: several jobs on one server, where each goes and what it loses.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/enums.h"
#include "facts/plan.h"

namespace steelyard::facts {

// One way to divide a card in hardware: a profile of catalog/mig.toml.
struct MigProfile {
  std::string name{};                  // "3g.40gb"
  std::int64_t compute = 1;            // slices of compute
  std::int64_t width = 1;              // slices of memory
  std::vector<std::int64_t> starts{};  // where it can begin
  Bytes memory{};                      // of one instance
  Ratio sm_share{}, memory_share{};    // of the card's arithmetic and of its bandwidth
};

struct MigTable {
  std::int64_t memory_slices = 8, compute_slices = 7;
  std::vector<MigProfile> profiles{};
  std::string source{};
};

// How a job has its GPUs.
enum class Seat { whole, time_slice, mig };
STEELYARD_ENUM_NAMES(Seat, "whole", "time_slice", "mig")

enum class SharedResource { gpu, page_cache, storage, cores, uplink };
STEELYARD_ENUM_NAMES(SharedResource, "gpu", "page_cache", "storage", "cores", "uplink")

// What a job wants of a resource to be as fast as alone and what it gets; bytes, bytes per second,
// cores, or the share of a GPU's time.
struct SharedPart {
  SharedResource resource = SharedResource::gpu;
  double wanted = 0.0, given = 0.0;
  Ratio slower{1.0};  // the step with only this part less than alone, over the step alone
};

struct PlacedJob {
  std::string name{}, file{};
  std::int64_t copy = 1, copies = 1;
  std::int64_t gpus = 1;
  std::string refused{};        // why it cannot be planned on this machine at all
  std::optional<Plan> alone{};  // with the machine to itself
  std::optional<Plan> together{};
  std::vector<std::int64_t> on{};       // GPU numbers; empty: it moves
  std::vector<std::int64_t> sockets{};  // of those GPUs
  Seat seat = Seat::whole;
  std::string profile{};   // of a MIG instance
  Bytes profile_memory{};  // of that instance
  std::optional<Seconds> step_alone{}, step_together{};
  std::vector<SharedPart> parts{};  // of resources that do not suffice for all
};

// Host memory of all jobs at once; the operating system is counted once.
struct SharedRam {
  Known<Bytes> capacity{};
  std::array<Bytes, kRamPhases> phases{};  // every job in that phase at the same moment
  Bytes worst{};                           // every job at its own fullest moment
  Bytes one_by_one{};         // one job at its fullest moment, the others in their steady state
  Bytes page_cache_wanted{};  // datasets and model files, those of copies once
  std::optional<Bytes> page_cache_left{};
};

// A resource of the whole machine: what there is and what all want.
struct SharedSum {
  SharedResource resource = SharedResource::storage;
  std::string name{};  // "nvme", "socket 1"
  double capacity = 0.0, wanted = 0.0;
};

// `one_by_one`: only if never two of the jobs start or checkpoint at the same moment.
enum class ShareVerdict { fits, one_by_one, refused, vram_short, gpus_short, ram_short };
STEELYARD_ENUM_NAMES(ShareVerdict, "fits", "one_by_one", "refused", "vram_short", "gpus_short",
                     "ram_short")

struct SharePlan {
  std::string machine{};
  std::int64_t gpus = 1;
  std::vector<std::int64_t> socket_of_gpu{};
  std::vector<PlacedJob> jobs{};  // in the order given
  SharedRam ram{};
  std::vector<SharedSum> sums{};
  ShareVerdict verdict = ShareVerdict::fits;
  std::vector<std::string> sentences{};  // why it is not `fits`, and what is not known
  std::vector<std::int64_t> move{};      // the smallest jobs without which the rest fits
  bool exact = true;                     // no better placement exists
};

}  // namespace steelyard::facts
