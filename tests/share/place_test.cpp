// Placements against every placement there is.
#include "share/place.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

namespace steelyard::share {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;

// A card in quarters, small enough to try everything.
facts::MigTable quarters() {
  facts::MigTable table;
  table.memory_slices = 4;
  table.compute_slices = 4;
  table.profiles = {{"1g", 1, 1, {0, 1, 2, 3}, Bytes(20 * kGiB), Ratio(0.25), Ratio(0.25)},
                    {"2g", 2, 2, {0, 2}, Bytes(40 * kGiB), Ratio(0.5), Ratio(0.5)}};
  return table;
}

// The least cost of all placements; none: there is none.
std::optional<Cost> by_brute_force(const Room& room, const std::vector<Tenant>& tenants) {
  std::optional<Cost> best;
  std::vector<Sitting> sittings(tenants.size());
  const std::function<void(std::size_t)> all = [&](std::size_t tenant) {
    if (tenant == tenants.size()) {
      if (!is_legal(room, tenants, sittings)) return;
      const Cost cost = cost_of(room, tenants, sittings);
      if (!best || cost < *best) best = cost;
      return;
    }
    const int profiles = room.mig == nullptr ? 0 : static_cast<int>(room.mig->profiles.size());
    for (int profile = -1; profile < profiles; ++profile) {
      for (std::uint32_t mask = 1; mask < (1U << room.gpus); ++mask) {
        if (__builtin_popcount(mask) != tenants[tenant].gpus) continue;
        sittings[tenant] = {.gpus = {}, .profile = profile};
        for (std::int64_t gpu = 0; gpu < room.gpus; ++gpu) {
          if ((mask >> gpu & 1U) != 0) sittings[tenant].gpus.push_back(gpu);
        }
        all(tenant + 1);
      }
    }
    sittings[tenant] = {};
  };
  all(0);
  return best;
}

enum class Mode { whole, time_slice, mig };

struct RandomRoom {
  Room room;
  facts::MigTable table = quarters();
  std::vector<Tenant> tenants;

  RandomRoom(std::mt19937& random, Mode mode) {
    const auto below = [&](std::uint32_t n) { return static_cast<std::int64_t>(random() % n); };
    room.gpus = 2 + below(mode == Mode::whole ? 5 : 3);
    room.sockets = 1 + below(2);
    room.per_uplink = 1 + below(2);
    room.vram = Bytes(80 * kGiB);
    room.uplink = 50e9;
    room.ram_per_socket = Bytes(100 * kGiB);
    room.time_slice = mode == Mode::time_slice;
    if (mode == Mode::mig) room.mig = &table;
    const std::int64_t jobs = 1 + below(mode == Mode::mig ? 3 : 4);
    for (std::int64_t i = 0; i < jobs; ++i) {
      tenants.push_back({.gpus = 1 + below(mode == Mode::mig ? 2 : 3),
                         .vram = Bytes((8 + 12 * below(5)) * kGiB),
                         .busy = 0.25 * static_cast<double>(1 + below(4)),
                         .uplink = 20e9 * static_cast<double>(below(3)),
                         .ram = Bytes((10 + 30 * below(3)) * kGiB)});
    }
  }
};

void expect_best(Mode mode, int rooms, std::uint32_t seed) {
  std::mt19937 random(seed);
  int placed = 0;
  for (int i = 0; i < rooms; ++i) {
    const RandomRoom one(random, mode);
    const std::optional<Cost> best = by_brute_force(one.room, one.tenants);
    const std::optional<Placement> found = place(one.room, one.tenants);
    ASSERT_EQ(found.has_value(), best.has_value()) << i;
    if (!found) continue;
    ++placed;
    EXPECT_TRUE(found->exact) << i;
    EXPECT_EQ(found->cost, *best) << i;
    EXPECT_TRUE(is_legal(one.room, one.tenants, found->sittings)) << i;
    EXPECT_EQ(cost_of(one.room, one.tenants, found->sittings), found->cost) << i;
  }
  EXPECT_GT(placed, rooms / 4);
}

TEST(Place, IsTheBestOfAllOnWholeGpus) {
  expect_best(Mode::whole, 300, 1);
}

TEST(Place, IsTheBestOfAllInTurns) {
  expect_best(Mode::time_slice, 150, 2);
}

TEST(Place, IsTheBestOfAllWithInstances) {
  expect_best(Mode::mig, 150, 3);
}

TEST(Place, SixteenSingleJobsOnSixteenGpusAreExact) {
  Room room{.gpus = 16, .sockets = 2, .per_uplink = 2, .vram = Bytes(80 * kGiB), .uplink = 50e9};
  std::vector<Tenant> tenants;
  for (int i = 0; i < 16; ++i) {
    tenants.push_back({.gpus = 1, .vram = Bytes(kGiB), .uplink = 2e9 * (i % 4)});
  }
  const auto found = place(room, tenants);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->exact);
  EXPECT_EQ(found->cost, (Cost{0, 0, 0, 0, 16}));
}

// Four and four on two sockets: nobody crosses, whatever the order.
TEST(Place, KeepsJobsOnOneSocket) {
  const Room room{.gpus = 8, .sockets = 2, .vram = Bytes(80 * kGiB)};
  const std::vector<Tenant> tenants = {{.gpus = 2}, {.gpus = 4}, {.gpus = 2}};
  const auto found = place(room, tenants);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->cost[3], 0);
  EXPECT_EQ(found->sittings[1].gpus, (std::vector<std::int64_t>{0, 1, 2, 3}));
}

TEST(Place, MoreGpusThanThereAreHaveNoPlace) {
  const Room room{.gpus = 4, .vram = Bytes(80 * kGiB)};
  EXPECT_FALSE(place(room, {{.gpus = 3}, {.gpus = 2}}));
}

// Two halves of 3g (4 of 8 memory slices each) fill a card; a third one does not fit although two
// compute slices... one is left.
TEST(Place, InstancesNeedStartsThatDoNotOverlap) {
  facts::MigTable table;
  table.profiles = {{"3g", 3, 4, {0, 4}, Bytes(40 * kGiB), Ratio(3.0 / 7), Ratio(0.5)}};
  Room room{.gpus = 1, .vram = Bytes(80 * kGiB), .mig = &table};
  const Tenant tenant{.gpus = 1, .vram = Bytes(30 * kGiB)};
  EXPECT_TRUE(place(room, {tenant, tenant}));
  EXPECT_FALSE(place(room, {tenant, tenant, tenant}));
}

// 1 shared by wants of 0.2, 0.6 and 0.9: 0.2 is granted, the rest halves 0.8.
TEST(FairShares, LeaveTheModestAloneAndHalveTheRest) {
  const auto given = fair_shares(1.0, {0.9, 0.2, 0.6});
  EXPECT_DOUBLE_EQ(given[1], 0.2);
  EXPECT_DOUBLE_EQ(given[0], 0.4);
  EXPECT_DOUBLE_EQ(given[2], 0.4);
  EXPECT_EQ(fair_shares(2.0, {0.5, 1.0}), (std::vector<double>{0.5, 1.0}));
  EXPECT_TRUE(fair_shares(1.0, {}).empty());
}

}  // namespace
}  // namespace steelyard::share
