// Where jobs sit on one server: the best placement by branch and bound.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/quantity.h"
#include "facts/share.h"

namespace steelyard::share {

struct Room {
  std::int64_t gpus = 1;
  std::int64_t sockets = 1;
  std::int64_t per_uplink = 1;  // GPUs of one socket that share a way to the host
  Bytes vram{};                 // of one card
  double uplink = 0.0;          // bytes per second; 0: unknown, so never short
  Bytes ram_per_socket{};       // 0: unknown, so never short
  bool time_slice = false;      // several jobs may take turns on a GPU
  const facts::MigTable* mig = nullptr;
};

struct Tenant {
  std::int64_t gpus = 1;
  Bytes vram{};         // of one GPU
  double busy = 1.0;    // share of the time in which it keeps its GPUs busy
  double uplink = 0.0;  // bytes per second of one of its GPUs
  Bytes ram{};          // of one of its ranks, at its fullest moment
};

struct Sitting {
  std::vector<std::int64_t> gpus{};  // ascending
  int profile = -1;                  // of Room::mig; -1: no MIG instance
};

// What a placement costs, most important first: time lost on shared GPUs (millionths of a step,
// summed over jobs), bytes per second (in MB/s) that uplinks are short of, MiB that sockets' memory
// is short of, sockets beyond the first of each job, uplinks that jobs touch. Whole numbers: the
// order of a sum does not matter.
using Cost = std::array<std::int64_t, 5>;

[[nodiscard]] std::int64_t socket_of(const Room& room, std::int64_t gpu);
[[nodiscard]] std::int64_t uplink_of(const Room& room, std::int64_t gpu);

// A sitting without GPUs stands for a tenant that has no place yet.
[[nodiscard]] bool is_legal(const Room& room, const std::vector<Tenant>& tenants,
                            const std::vector<Sitting>& sittings);
[[nodiscard]] Cost cost_of(const Room& room, const std::vector<Tenant>& tenants,
                           const std::vector<Sitting>& sittings);

// The share of a GPU's time that each of those that take turns on it gets: what it wants, or an
// equal share of what is left (max-min fair).
[[nodiscard]] std::vector<double> fair_shares(double capacity, const std::vector<double>& wanted);

// The share of its GPUs' time that tenant `which` gets on the slowest of them; of a MIG instance
// its multiprocessors.
[[nodiscard]] double gpu_share(const Room& room, const std::vector<Tenant>& tenants,
                               const std::vector<Sitting>& sittings, std::size_t which);

struct Placement {
  std::vector<Sitting> sittings{};
  Cost cost{};
  bool exact = true;  // false: the search was cut off, a better one may exist
};

// None: the tenants have no room. Exact for machines of up to 16 GPUs without time slices; with
// them until `kMostNodes` partial placements were looked at.
constexpr std::int64_t kMostNodes = 200'000;
[[nodiscard]] std::optional<Placement> place(const Room& room, const std::vector<Tenant>& tenants);

}  // namespace steelyard::share
