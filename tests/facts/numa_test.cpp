// Where GPUs hang and what crosses between sockets, by hand.
#include "facts/numa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "facts/machine.h"

namespace steelyard::facts {
namespace {

using ::testing::ElementsAre;

// Two EPYCs in NPS4 as nvidia-smi topo -m shows a DGX A100 (NVIDIA/nccl issue 1505).
Machine dgx_a100() {
  Machine machine;
  machine.gpus = 8;
  machine.host.sockets = {2, Provenance::catalogue};
  machine.host.memory = {Bytes(8000), Provenance::catalogue};
  for (std::int64_t id = 0; id < 8; ++id) {
    machine.host.numa.nodes.push_back(
        {.id = id, .socket = {}, .memory = {Bytes(1000), Provenance::measured}});
  }
  for (const std::int64_t node : {3, 3, 1, 1, 7, 7, 5, 5}) {
    machine.host.numa.gpus.push_back({"", {node, Provenance::measured}});
  }
  return machine;
}

TEST(NumaLayout, GpusHangWhereTheMachineSays) {
  const NumaLayout layout = numa_layout(dgx_a100(), 8);
  EXPECT_THAT(layout.node_of_gpu, ElementsAre(3, 3, 1, 1, 7, 7, 5, 5));
  EXPECT_EQ(layout.sockets, 2);
  EXPECT_EQ(layout.socket_of_gpu(0), 0);
  EXPECT_EQ(layout.socket_of_gpu(6), 1);
  EXPECT_FALSE(layout.nodes_assumed);
  EXPECT_FALSE(layout.gpus_assumed);
  EXPECT_EQ(layout.nodes[4].socket.from, Provenance::assumed) << "nodes in order over the sockets";
}

TEST(NumaLayout, WithoutNodesEachSocketIsOne) {
  Machine machine;
  machine.gpus = 8;
  machine.host.sockets = {2, Provenance::catalogue};
  machine.host.memory = {Bytes(4000), Provenance::catalogue};
  const NumaLayout layout = numa_layout(machine, 8);
  EXPECT_THAT(layout.node_of_gpu, ElementsAre(0, 0, 0, 0, 1, 1, 1, 1));
  EXPECT_EQ(layout.nodes[1].memory.value, Bytes(2000));
  EXPECT_TRUE(layout.nodes_assumed);
  EXPECT_TRUE(layout.gpus_assumed);
  machine.host.sockets = {};
  EXPECT_EQ(numa_layout(machine, 8).nodes.size(), 1U);
}

TEST(NumaLayout, OneUnknownGpuLeavesAllInOrder) {
  Machine machine = dgx_a100();
  machine.host.numa.gpus[2].node = {};
  EXPECT_TRUE(numa_layout(machine, 8).gpus_assumed);
  EXPECT_THAT(numa_layout(machine, 8).node_of_gpu, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_FALSE(numa_layout(machine, 2).gpus_assumed) << "the job uses the first two";
}

// Half of what is scattered crosses, half of that each way; GPUs in equal parts take the same.
TEST(SocketShares, OfEqualParts) {
  const SocketShares shares = socket_shares(numa_layout(dgx_a100(), 8));
  EXPECT_DOUBLE_EQ(shares.scattered, 0.25);
  EXPECT_DOUBLE_EQ(shares.to_gpus, 0.25);
  EXPECT_DOUBLE_EQ(shares.bound, 0.25);
}

// Four GPUs of one socket: bound ranks have nothing on the other; of what ranks anywhere hand to
// these GPUs half comes over the link, all of it one way.
TEST(SocketShares, OfOneSocketAlone) {
  const SocketShares shares = socket_shares(numa_layout(dgx_a100(), 4));
  EXPECT_DOUBLE_EQ(shares.scattered, 0.25);
  EXPECT_DOUBLE_EQ(shares.to_gpus, 0.5);
  EXPECT_DOUBLE_EQ(shares.bound, 0.0);
}

TEST(ThreadsOfList, AsTheKernelWrites) {
  EXPECT_EQ(threads_of_list("0-15,128-143"), 32);
  EXPECT_EQ(threads_of_list("7"), 1);
  for (const char* wrong : {"", "3-1", "0-", "a", "0,,1", "0 1", "-1", "0-99999999"}) {
    EXPECT_FALSE(threads_of_list(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace steelyard::facts
