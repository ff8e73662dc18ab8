// What passes between sockets and over a switch's lanes, by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "feed/example.h"

namespace steelyard::feed {
namespace {

using testing::Example;
using ::testing::HasSubstr;
using testing::stage;

Example two_sockets() {
  Example example;
  example.constants.socket_link = BytesPerSecond(60e9);
  example.needed = SamplesPerSecond(4'000.0);
  return example;
}

// Two sockets: half of the bytes cross, half of those each way. 110,000 B as stored, and unbound
// 150,528 B from worker to rank and again from rank to GPU.
TEST(Sockets, whatCrosses) {
  Example example = two_sockets();
  facts::FeedPlan plan = *example.plan();
  EXPECT_THAT(plan.numa.socket_of_rank, ::testing::ElementsAre(0, 0, 0, 0, 1, 1, 1, 1));
  EXPECT_NEAR(plan.numa.crosses->value(), 4'000.0 * (110'000 + 2 * 150'528) / 4.0, 1.0);
  EXPECT_NEAR(plan.numa.crosses_bound->value(), 4'000.0 * 110'000 / 4.0, 1.0);
  example.job.machine.numa_binding = true;
  plan = *example.plan();
  EXPECT_EQ(plan.numa.crosses->value(), plan.numa.crosses_bound->value());
}

// A link of 0.1 GB/s each way carries 4 x 0.1e9 / 411,056 = 973 samples per second.
TEST(Sockets, aSlowLinkLimitsCopiesUntilRanksAreBound) {
  Example example = two_sockets();
  example.constants.socket_link = BytesPerSecond(0.1e9);
  facts::FeedPlan plan = *example.plan();
  EXPECT_NEAR(stage(plan, "host-to-device").can->value(), 4.0 * 0.1e9 / 411'056, 0.1);
  EXPECT_THAT(stage(plan, "host-to-device").note, HasSubstr("not bound"));
  EXPECT_EQ(plan.limited_by, "host-to-device");
  example.job.machine.numa_binding = true;
  plan = *example.plan();
  EXPECT_NEAR(stage(plan, "host-to-device").can->value(), 4.0 * 0.1e9 / 110'000, 0.1);
}

TEST(Sockets, oneSocketHasNothingToSay) {
  Example example = two_sockets();
  example.machine.host.sockets = {1, facts::Provenance::catalogue};
  EXPECT_TRUE(example.plan()->numa.socket_of_rank.empty());
}

// Two GPUs behind each switch: half of the link for each.
TEST(Uplink, gpusBehindASwitchShareItsLanes) {
  Example example;
  const double alone = stage(*example.plan(), "host-to-device").can->value();
  example.machine.host.gpus_per_uplink = {2, facts::Provenance::catalogue};
  EXPECT_NEAR(stage(*example.plan(), "host-to-device").can->value(), alone / 2.0, 1.0);
  example.job.machine.gpus = 1;  // the only one that copies
  EXPECT_NEAR(stage(*example.plan(), "host-to-device").can->value(), alone / 8.0, 1.0);
}

}  // namespace
}  // namespace steelyard::feed
