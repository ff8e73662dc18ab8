// Which ranks belong where, what a node then holds, and how they are bound, by hand.
#include "plan/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace steelyard::plan {
namespace {

using namespace literals;
using facts::Known;
using facts::Plan;
using facts::Provenance;
using facts::RamCategory;
using facts::RamPhase;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

facts::RamBytes& phase(Plan& plan, RamPhase which) {
  return plan.ram.phases[static_cast<std::size_t>(which)];
}

// As catalog/machines.json has it: eight nodes of 256 GiB on two sockets.
facts::Machine dgx_a100() {
  facts::Machine machine;
  machine.gpus = 8;
  machine.host.sockets = {2, Provenance::catalogue};
  machine.host.memory = {2048_GiB, Provenance::catalogue};
  const char* cpus[] = {"0-15,128-143",  "16-31,144-159", "32-47,160-175",  "48-63,176-191",
                        "64-79,192-207", "80-95,208-223", "96-111,224-239", "112-127,240-255"};
  for (std::int64_t id = 0; id < 8; ++id) {
    machine.host.numa.nodes.push_back({.id = id,
                                       .socket = {id / 4, Provenance::catalogue},
                                       .memory = {256_GiB, Provenance::derived},
                                       .cpus = cpus[id]});
  }
  for (const std::int64_t node : {3, 3, 1, 1, 7, 7, 5, 5}) {
    const Known<std::int64_t> known(node, Provenance::catalogue);
    machine.host.numa.gpus.push_back({"", known});
    const std::size_t count = machine.host.numa.nics.size();
    machine.host.numa.nics.push_back(
        {"mlx5_" + std::to_string(count + (count > 3 ? 2 : 0)), known});
  }
  return machine;
}

// Eight ranks of 10 GiB each, 16 GiB of the system, and a checkpoint of 90 GiB that rank 0 gathers.
Plan on_dgx_a100() {
  Plan plan;
  plan.job.machine.gpus = 8;
  plan.job.data.workers = 2;
  plan.job.data.kind = facts::DataKind::tokens;
  plan.machine = dgx_a100();
  phase(plan, RamPhase::steady)[RamCategory::system] = 16_GiB;
  phase(plan, RamPhase::steady)[RamCategory::framework] = 80_GiB;
  phase(plan, RamPhase::checkpoint) = phase(plan, RamPhase::steady);
  phase(plan, RamPhase::checkpoint)[RamCategory::checkpoint_staging] = 90_GiB;
  return plan;
}

void set_memory(Plan& plan, Bytes each) {
  for (facts::HostNode& node : plan.machine.host.numa.nodes) {
    node.memory = {each, Provenance::given};
  }
}

TEST(Placement, RanksBelongToTheNodesOfTheirGpus) {
  const facts::NumaPlacement placement = placement_of(on_dgx_a100(), 0.0);
  EXPECT_FALSE(placement.assumed);
  ASSERT_EQ(placement.nodes.size(), 8U);
  EXPECT_THAT(placement.nodes[3].ranks, ElementsAre(0, 1));
  EXPECT_THAT(placement.nodes[1].ranks, ElementsAre(2, 3));
  EXPECT_TRUE(placement.nodes[0].ranks.empty());
  EXPECT_THAT(placement.nodes[3].nics, ElementsAre("mlx5_0", "mlx5_1"));
  EXPECT_EQ(placement.ranks[1].nic, "mlx5_1");
  EXPECT_EQ(placement.ranks[5].nic, "mlx5_7");
  EXPECT_TRUE(placement.ranks[5].nic_near);
  EXPECT_EQ(placement.ranks[0].numactl, "numactl --cpunodebind=3 --membind=3");
  EXPECT_EQ(placement.ranks[0].taskset, "taskset -c 48-63,176-191");
  EXPECT_EQ(placement.ranks[7].numactl, "numactl --cpunodebind=5 --membind=5");
}

// Node 3: two ranks of eight (20 GiB), an eighth of the system (2 GiB), the checkpoint of rank 0.
TEST(Placement, ANodeHoldsItsRanksAndWhatRank0Gathers) {
  const facts::NumaPlacement placement = placement_of(on_dgx_a100(), 0.0);
  EXPECT_EQ(placement.nodes[3].need, 112_GiB);
  EXPECT_EQ(placement.nodes[3].need_phase, RamPhase::checkpoint);
  EXPECT_EQ(placement.nodes[1].need, 22_GiB);
  EXPECT_EQ(placement.nodes[0].need, 2_GiB);
  Plan sharded = on_dgx_a100();
  sharded.job.checkpoint.method = facts::CheckpointMethod::sharded_sync;
  EXPECT_EQ(placement_of(sharded, 0.0).nodes[1].need,
            Bytes((22_GiB).value() + (90_GiB).value() / 4));
}

TEST(Placement, MemoryThatOneNodeLacksComesFromItsSocket) {
  Plan plan = on_dgx_a100();
  set_memory(plan, 100_GiB);
  const facts::NumaPlacement placement = placement_of(plan, 0.0);
  EXPECT_EQ(placement.nodes[3].fits, false);
  EXPECT_EQ(placement.ranks[0].numactl, "numactl --cpunodebind=3 --membind=0-3");
  EXPECT_TRUE(placement.ranks[0].strict);
  EXPECT_EQ(placement.ranks[2].numactl, "numactl --cpunodebind=1 --membind=0-3")
      << "the first two fill its node too";
  EXPECT_EQ(placement.ranks[4].numactl, "numactl --cpunodebind=7 --membind=7");
  EXPECT_EQ(placement.short_node(), nullptr);
}

// Socket 0 has 4 x 30 GiB for four ranks (40 GiB), half of the system (8 GiB) and 90 GiB.
TEST(Placement, MemoryThatTheSocketLacksIsOnlyPreferred) {
  Plan plan = on_dgx_a100();
  set_memory(plan, 30_GiB);
  plan.numa = placement_of(plan, 0.0);
  EXPECT_EQ(plan.numa.ranks[0].numactl, "numactl --cpunodebind=3 --preferred=3");
  EXPECT_FALSE(plan.numa.ranks[0].strict);
  ASSERT_NE(plan.numa.short_node(), nullptr);
  EXPECT_EQ(plan.numa.short_node()->node, 3);
  EXPECT_THAT(plan.numa.remarks.front(), HasSubstr("--membind they would be killed"));
  EXPECT_TRUE(nodes_have_room(plan));
  plan.job.machine.numa_binding = true;
  EXPECT_TRUE(nodes_have_room(plan));
  plan.job.machine.numa_memory = facts::NumaMemory::strict;
  EXPECT_FALSE(nodes_have_room(plan));
}

// 32 hardware threads for two ranks with 20 loaders each.
TEST(Placement, ThreadsThatOneNodeLacksComeFromItsSocket) {
  Plan plan = on_dgx_a100();
  plan.job.data.workers = 20;
  const facts::NumaPlacement placement = placement_of(plan, 0.0);
  EXPECT_EQ(placement.ranks[4].numactl, "numactl --cpunodebind=4-7 --membind=7");
  EXPECT_EQ(placement.ranks[4].taskset,
            "taskset -c 64-79,192-207,80-95,208-223,96-111,224-239,112-127,240-255");
}

// 4 GB of each rank's states pass between GPU and host in a step: half of them come from the other
// socket, half of those each way. Bound, none do.
TEST(Placement, WhatOffloadingSendsOverTheLink) {
  Plan plan = on_dgx_a100();
  plan.pace.step = Seconds(2.0);
  plan.feed.numa.link = BytesPerSecond(64e9);
  plan.feed.numa.crosses = BytesPerSecond(1e9);
  plan.feed.numa.crosses_bound = BytesPerSecond(0.5e9);
  const facts::NumaPlacement placement = placement_of(plan, 4e9);
  EXPECT_DOUBLE_EQ(*placement.crossing_bytes, 2e9 + 8 * 4e9 / 4);
  EXPECT_DOUBLE_EQ(*placement.crossing_bytes_bound, 1e9);
  EXPECT_DOUBLE_EQ(placement.crossing->value(), 10e9 / 64e9);
}

TEST(Placement, OneNodeHasNothingToSay) {
  Plan plan = on_dgx_a100();
  plan.machine.host.numa = {};
  plan.machine.host.sockets = {};
  EXPECT_TRUE(placement_of(plan, 0.0).ranks.empty());
}

TEST(Placement, UnknownPlacesAreSaidToBeAssumed) {
  Plan plan = on_dgx_a100();
  plan.machine.host.numa = {};
  const facts::NumaPlacement placement = placement_of(plan, 0.0);
  EXPECT_TRUE(placement.assumed);
  EXPECT_THAT(placement.note, HasSubstr("assumed"));
  EXPECT_EQ(placement.ranks[7].numactl, "numactl --cpunodebind=1 --membind=1");
  EXPECT_EQ(placement.ranks[7].taskset, "");
}

}  // namespace
}  // namespace steelyard::plan
