// What a placement is allowed to be and what it costs.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include "share/place.h"

namespace steelyard::share {
namespace {

constexpr double kMillionths = 1e6, kMega = 1e6;
constexpr std::int64_t kMebi = std::int64_t{1} << 20;

std::vector<std::size_t> sitting_on(const std::vector<Sitting>& sittings, std::int64_t gpu) {
  std::vector<std::size_t> on;
  for (std::size_t i = 0; i < sittings.size(); ++i) {
    if (std::ranges::find(sittings[i].gpus, gpu) != sittings[i].gpus.end()) on.push_back(i);
  }
  return on;
}

// Whether instances of these profiles find starts that do not overlap. Few and short lists.
bool packs(const facts::MigTable& mig, const std::vector<int>& profiles) {
  std::int64_t compute = 0;
  for (const int p : profiles) compute += mig.profiles[static_cast<std::size_t>(p)].compute;
  if (compute > mig.compute_slices) return false;
  const std::function<bool(std::size_t, std::uint64_t)> rest = [&](std::size_t i,
                                                                   std::uint64_t taken) {
    if (i == profiles.size()) return true;
    const facts::MigProfile& profile = mig.profiles[static_cast<std::size_t>(profiles[i])];
    for (const std::int64_t start : profile.starts) {
      if (start + profile.width > mig.memory_slices) continue;
      const std::uint64_t mask = ((std::uint64_t{1} << profile.width) - 1) << start;
      if ((taken & mask) == 0 && rest(i + 1, taken | mask)) return true;
    }
    return false;
  };
  return rest(0, 0);
}

bool gpu_is_legal(const Room& room, const std::vector<Tenant>& tenants,
                  const std::vector<Sitting>& sittings, const std::vector<std::size_t>& on) {
  Bytes vram;
  std::vector<int> profiles;
  for (const std::size_t i : on) {
    vram += tenants[i].vram;
    if (sittings[i].profile >= 0) profiles.push_back(sittings[i].profile);
  }
  if (!profiles.empty()) {
    std::sort(profiles.begin(), profiles.end(), std::greater<>());
    return profiles.size() == on.size() && packs(*room.mig, profiles);
  }
  if (on.size() > 1 && !room.time_slice) return false;
  return vram <= room.vram;
}

bool fits_its_profile(const Room& room, const Tenant& tenant, const Sitting& sitting) {
  if (sitting.profile < 0) return true;
  if (room.mig == nullptr || tenant.gpus != 1) return false;
  return tenant.vram <= room.mig->profiles[static_cast<std::size_t>(sitting.profile)].memory;
}

// Bytes per second that go over each uplink, and bytes of host memory of each socket.
struct Loads {
  std::vector<double> uplinks, sockets;
};

Loads loads_of(const Room& room, const std::vector<Tenant>& tenants,
               const std::vector<Sitting>& sittings) {
  Loads loads{std::vector<double>(static_cast<std::size_t>(room.gpus), 0.0),
              std::vector<double>(static_cast<std::size_t>(room.sockets), 0.0)};
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    for (const std::int64_t gpu : sittings[i].gpus) {
      loads.uplinks[static_cast<std::size_t>(uplink_of(room, gpu))] += tenants[i].uplink;
      loads.sockets[static_cast<std::size_t>(socket_of(room, gpu))] += tenants[i].ram.real();
    }
  }
  return loads;
}

// 1 is no loss: what the tenant keeps busy alone over what it gets.
double slowdown(const Tenant& tenant, double share) {
  return share >= tenant.busy ? 1.0 : tenant.busy / share;
}

}  // namespace

std::int64_t socket_of(const Room& room, std::int64_t gpu) {
  return gpu * room.sockets / room.gpus;
}

// Numbered over the whole machine: an uplink does not span sockets.
std::int64_t uplink_of(const Room& room, std::int64_t gpu) {
  std::int64_t number = 0;
  std::int64_t in_a_row = 0;
  for (std::int64_t g = 1; g <= gpu; ++g) {
    const bool other_socket = socket_of(room, g) != socket_of(room, g - 1);
    if (other_socket || ++in_a_row == std::max<std::int64_t>(1, room.per_uplink)) {
      ++number;
      in_a_row = 0;
    }
  }
  return number;
}

std::vector<double> fair_shares(double capacity, const std::vector<double>& wanted) {
  std::vector<std::size_t> order(wanted.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(wanted[a], a) < std::pair(wanted[b], b);
  });
  std::vector<double> given(wanted.size(), 0.0);
  double left = std::max(0.0, capacity);
  std::size_t others = order.size();
  for (const std::size_t i : order) {
    given[i] = std::min(wanted[i], left / static_cast<double>(others--));
    left -= given[i];
  }
  return given;
}

double gpu_share(const Room& room, const std::vector<Tenant>& tenants,
                 const std::vector<Sitting>& sittings, std::size_t which) {
  const Sitting& sitting = sittings[which];
  if (sitting.profile >= 0) {
    return room.mig->profiles[static_cast<std::size_t>(sitting.profile)].sm_share.value();
  }
  double least = 1.0;
  for (const std::int64_t gpu : sitting.gpus) {
    const std::vector<std::size_t> on = sitting_on(sittings, gpu);
    if (on.size() < 2) continue;
    std::vector<double> wanted;
    std::size_t mine = 0;
    for (const std::size_t i : on) {
      if (i == which) mine = wanted.size();
      wanted.push_back(tenants[i].busy);
    }
    least = std::min(least, fair_shares(1.0, wanted)[mine]);
  }
  return least;
}

bool is_legal(const Room& room, const std::vector<Tenant>& tenants,
              const std::vector<Sitting>& sittings) {
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    const Sitting& sitting = sittings[i];
    if (sitting.gpus.empty()) continue;
    if (static_cast<std::int64_t>(sitting.gpus.size()) != tenants[i].gpus) return false;
    if (std::set<std::int64_t>(sitting.gpus.begin(), sitting.gpus.end()).size() !=
        sitting.gpus.size()) {
      return false;
    }
    if (!fits_its_profile(room, tenants[i], sitting)) return false;
  }
  for (std::int64_t gpu = 0; gpu < room.gpus; ++gpu) {
    const std::vector<std::size_t> on = sitting_on(sittings, gpu);
    if (!on.empty() && !gpu_is_legal(room, tenants, sittings, on)) return false;
  }
  return true;
}

Cost cost_of(const Room& room, const std::vector<Tenant>& tenants,
             const std::vector<Sitting>& sittings) {
  Cost cost{};
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    if (sittings[i].gpus.empty()) continue;
    const double lost = slowdown(tenants[i], gpu_share(room, tenants, sittings, i)) - 1.0;
    cost[0] += std::llround(lost * kMillionths);
    std::set<std::int64_t> sockets, uplinks;
    for (const std::int64_t gpu : sittings[i].gpus) {
      sockets.insert(socket_of(room, gpu));
      uplinks.insert(uplink_of(room, gpu));
    }
    cost[3] += static_cast<std::int64_t>(sockets.size()) - 1;
    cost[4] += static_cast<std::int64_t>(uplinks.size());
  }
  const Loads loads = loads_of(room, tenants, sittings);
  for (const double load : loads.uplinks) {
    if (room.uplink > 0.0 && load > room.uplink) {
      cost[1] += std::llround((load - room.uplink) / kMega);
    }
  }
  for (const double load : loads.sockets) {
    const double there = room.ram_per_socket.real();
    if (there > 0.0 && load > there) {
      cost[2] += std::llround((load - there) / static_cast<double>(kMebi));
    }
  }
  return cost;
}

}  // namespace steelyard::share
