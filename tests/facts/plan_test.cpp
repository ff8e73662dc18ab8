#include "facts/plan.h"

#include <gtest/gtest.h>

namespace steelyard::facts {
namespace {

TEST(Plan, FitsUnlessSomethingIsKnownToBeShort) {
  Plan plan;
  EXPECT_TRUE(plan.fits()) << "an unknown capacity is no refusal";
  plan.fits_vram = true;
  plan.fits_ram = false;
  EXPECT_FALSE(plan.fits());
  plan.fits_ram = true;
  EXPECT_TRUE(plan.fits());
}

TEST(PaceBreakdown, SumsItsParts) {
  PaceBreakdown parts;
  parts.compute = Seconds(1.0);
  parts.memory_bound = Seconds(0.5);
  parts.exposed_communication = Seconds(0.25);
  parts.bubble = Seconds(0.125);
  parts.optimizer = Seconds(2.0);
  parts.offload = Seconds(4.0);
  parts.data_stall = Seconds(8.0);
  parts.checkpoint = Seconds(16.0);
  EXPECT_EQ(parts.total(), Seconds(31.875));
}

TEST(Known, IsUnknownUntilGiven) {
  const Known<Bytes> unknown;
  EXPECT_FALSE(unknown);
  EXPECT_EQ(unknown.from, Provenance::unknown);
  const Known<Bytes> known(Bytes(5), Provenance::measured, "nvidia-smi");
  ASSERT_TRUE(known);
  EXPECT_EQ(*known, Bytes(5));
  EXPECT_EQ(known->value(), 5);
}

}  // namespace
}  // namespace steelyard::facts
