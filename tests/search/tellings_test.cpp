// What is said of layouts that are not the best one.
#include "search/tellings.h"

#include <gtest/gtest.h>

namespace steelyard::search {
namespace {

facts::Plan plan_of(double step, double compute, double bubble) {
  facts::Plan plan;
  plan.pace.step = Seconds(step);
  plan.pace.breakdown.compute = Seconds(compute);
  plan.pace.breakdown.bubble = Seconds(bubble);
  return plan;
}

TEST(Tellings, NameWhatGrewMost) {
  const facts::Plan winner = plan_of(10.0, 8.0, 2.0);
  EXPECT_EQ(how_slow(winner, plan_of(12.0, 8.5, 3.5)), "fits, 20 % slower: 1.5 s more of bubbles");
  EXPECT_EQ(how_slow(winner, plan_of(12.0, 10.0, 2.0)), "fits, 20 % slower: 2 s more of compute");
}

TEST(Tellings, OfTheSameStepSayAsFast) {
  const facts::Plan winner = plan_of(10.0, 8.0, 2.0);
  EXPECT_EQ(how_slow(winner, plan_of(10.0, 8.0, 2.0)), "fits, as fast");
  EXPECT_EQ(how_slow(winner, plan_of(10.004, 8.0, 2.004)), "fits, as fast");  // shows as 0.0 %
  EXPECT_NE(how_slow(winner, plan_of(10.01, 8.0, 2.01)), "fits, as fast");
}

TEST(Tellings, WhyNotNamesAllThatIsShort) {
  facts::Plan plan = plan_of(1.0, 1.0, 0.0);
  plan.fits_vram = false;
  plan.fits_ram = false;
  plan.vram.capacity = {Bytes(std::int64_t{80} << 30), facts::Provenance::catalogue};
  plan.vram.fullest.peak_device_used = Bytes(std::int64_t{90} << 30);
  plan.ram.capacity = {Bytes(std::int64_t{512} << 30), facts::Provenance::catalogue};
  plan.ram.peak = Bytes(std::int64_t{600} << 30);
  EXPECT_EQ(why_not(plan, Within{}),
            "does not fit: each GPU needs 90.0 GiB of 80.0 GiB; each node needs 600.0 GiB of 512.0 "
            "GiB of host memory");
  EXPECT_NEAR(lack_of(plan), 600.0 / 512.0, 1e-9);
}

}  // namespace
}  // namespace steelyard::search
