#include "pace/collectives.h"

#include <gtest/gtest.h>

#include "pace/small_programs.h"

namespace steelyard::pace {
namespace {

using step::Collective;
using step::Communication;
using test::halves;
using test::round_machine;
using namespace literals;

Communication of(Collective kind, Bytes payload, std::int64_t ranks, std::int64_t per_node) {
  Communication communication;
  communication.kind = kind;
  communication.payload = payload;
  communication.ranks = ranks;
  communication.ranks_per_node = per_node;
  return communication;
}

double priced(const Communication& communication, const facts::Machine& machine,
              const facts::EfficiencyConstants& constants = halves()) {
  Missing missing;
  const auto time = time_of(communication, machine, constants, missing);
  EXPECT_TRUE(time.has_value());
  EXPECT_FALSE(missing.any());
  return time.value_or(Seconds()).value();
}

TEST(Collectives, RingAllReduceOfOneGibibyteOverEightGpus) {
  facts::EfficiencyConstants constants = halves();
  constants.collective_latency = Seconds(4e-6);
  // 2 * 7/8 * 1,073,741,824 B = 1,879,048,192 B over 0.5 * 500 GB/s = 7.516 ms;
  // 2 * 7 steps of 4 us = 56 us.
  EXPECT_NEAR(priced(of(Collective::all_reduce, 1_GiB, 8, 8), round_machine(), constants),
              1'879'048'192.0 / 250e9 + 56e-6, 1e-12);
}

TEST(Collectives, GatherAndScatterAreEachHalfOfAnAllReduce) {
  const double all_reduce = priced(of(Collective::all_reduce, 1_GiB, 8, 8), round_machine());
  const double gather = priced(of(Collective::all_gather, 1_GiB, 8, 8), round_machine());
  const double scatter = priced(of(Collective::reduce_scatter, 1_GiB, 8, 8), round_machine());
  EXPECT_DOUBLE_EQ(gather, all_reduce / 2.0);
  EXPECT_DOUBLE_EQ(scatter, gather);
}

// A bridge joins a pair: four GPUs go through the host, two over the bridge.
TEST(Collectives, ABridgeCarriesAPairAlone) {
  facts::Machine machine = round_machine();
  machine.gpu.link_gpus = 2;
  facts::Machine without = round_machine();
  without.gpu.link = {BytesPerSecond(0.0), facts::Provenance::given};
  const Communication pair = of(Collective::all_gather, 1_GiB, 2, 2);
  const Communication four = of(Collective::all_gather, 1_GiB, 4, 4);
  EXPECT_DOUBLE_EQ(priced(pair, machine), priced(pair, round_machine()));
  EXPECT_DOUBLE_EQ(priced(four, machine), priced(four, without));
  EXPECT_GT(priced(four, machine), priced(four, round_machine()));
}

TEST(Collectives, AGroupOverTwoNodesUsesAllRails) {
  facts::EfficiencyConstants constants = halves();
  constants.collective_latency = Seconds(4e-6);
  constants.network_latency = Seconds(20e-6);
  // 15/16 of 16 GB = 15 GB. Inside: 15e9 / 250e9 = 60 ms. Between: eight rails of 0.5 * 50 GB/s
  // = 200 GB/s: 75 ms, the slower one. Steps: 15, of which one crosses: 14 * 4 us + 20 us = 76 us.
  EXPECT_NEAR(priced(of(Collective::all_gather, 16_GB, 16, 8), round_machine(), constants),
              75e-3 + 76e-6, 1e-12);
}

TEST(Collectives, OneRankPerNodeHasOneRail) {
  // 2 * 1/2 * 1 GB over 25 GB/s = 40 ms; the link inside the node is not used.
  facts::Machine machine = round_machine();
  machine.gpu.link = {};
  machine.gpu.host_link = {};
  EXPECT_DOUBLE_EQ(priced(of(Collective::all_reduce, 1_GB, 2, 1), machine), 40e-3);
}

TEST(Collectives, AloneNothingIsSent) {
  facts::Machine bare;
  EXPECT_EQ(priced(of(Collective::all_reduce, 1_GB, 1, 1), bare), 0.0);
}

TEST(Collectives, WithoutAGpuLinkTheHostLinkCarries) {
  facts::Machine machine = round_machine();
  machine.gpu.link = {BytesPerSecond(0.0), facts::Provenance::catalogue};
  // 1/2 * 1 GB over 0.25 * 64 GB/s = 31.25 ms.
  EXPECT_DOUBLE_EQ(priced(of(Collective::all_gather, 1_GB, 2, 8), machine), 31.25e-3);
}

TEST(Collectives, WhatTheMachineLacksIsNamed) {
  facts::Machine machine = round_machine();
  machine.gpu.link = {};
  machine.gpu.host_link = {};
  machine.network_per_gpu = {};
  Missing missing;
  EXPECT_FALSE(time_of(of(Collective::all_gather, 1_GB, 16, 8), machine, halves(), missing));
  EXPECT_EQ(missing.names(), (std::vector<std::string>{"GPU link and host link of Round GPU",
                                                       "network rate per GPU of round"}));
}

TEST(Collectives, AnExchangeSendsOverTheCardOfEachRank) {
  facts::EfficiencyConstants constants = halves();
  constants.collective_latency = Seconds(4e-6);
  constants.network_latency = Seconds(10e-6);
  // 64 MiB of each of 8 ranks of a node: 7/8 of it over 250 GB/s, sent all at once.
  EXPECT_NEAR(priced(of(Collective::all_to_all, 64_MiB, 8, 8), round_machine(), constants),
              7.0 / 8.0 * 67'108'864.0 / 250e9 + 4e-6, 1e-12);
  // Over 4 nodes: 24/32 of it leaves the node, over the rank's own 25 GB/s.
  EXPECT_NEAR(priced(of(Collective::all_to_all, 64_MiB, 32, 8), round_machine(), constants),
              24.0 / 32.0 * 67'108'864.0 / 25e9 + 14e-6, 1e-12);
}

// Kernels that wait for a slow network leave the memory alone: what they slow is in proportion to
// what they move.
TEST(Collectives, ASlowNetworkCrowdsLessThanTheLinkDoes) {
  facts::EfficiencyConstants constants = halves();
  constants.overlap_traffic = Ratio(0.1);
  facts::Machine machine = round_machine();
  machine.gpu.memory_bandwidth.value = BytesPerSecond(2.5e12);
  const auto crowding = [&](std::int64_t ranks, double network) {
    machine.network_per_gpu.value = BytesPerSecond(network);
    const Communication all = of(Collective::all_gather, 1_GiB, ranks, 8);
    return crowding_of(all, machine, constants, Seconds(priced(all, machine, constants)));
  };
  // 0.5 x 500 GB/s of the link are a tenth of 2.5 TB/s.
  EXPECT_NEAR(crowding(8, 50e9), 1.0, 1e-6);
  // Over two nodes 8 rails of 0.5 x 5 GB/s set the time: 20 GB/s over each link.
  EXPECT_NEAR(crowding(16, 5e9), 20e9 / 250e9, 1e-6);
  EXPECT_GT(crowding(16, 50e9), crowding(16, 5e9));
  constants.overlap_traffic = Ratio(0.0);
  EXPECT_EQ(crowding(16, 5e9), 1.0);  // nobody says
}

}  // namespace
}  // namespace steelyard::pace
