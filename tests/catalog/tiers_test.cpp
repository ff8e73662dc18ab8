#include "catalog/tiers.h"

#include <gtest/gtest.h>

#include "catalog_fixture.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

TEST(Tiers, HaveTheirRulesAndJobsThatCanBeRead) {
  EXPECT_EQ(tier_names(own_catalog()),
            (std::vector<std::string>{"data-heavy", "entry", "large", "mid"}));
  for (const std::string& name : tier_names(own_catalog())) {
    const facts::TierMix mix = value_of(tier_mix(own_catalog(), name));
    EXPECT_FALSE(mix.about.empty()) << name;
    EXPECT_LT(mix.rule.low, mix.rule.high) << name;
    ASSERT_FALSE(mix.jobs.empty()) << name;
    for (const facts::TierMix::Member& job : mix.jobs) {
      const auto read = codec::read_job(job.file);
      EXPECT_TRUE(read) << name << ": " << (read ? "" : to_text(read.error()));
    }
  }
}

TEST(Tiers, TheRulesAreThoseOfTheMission) {
  const facts::TierMix entry = value_of(tier_mix(own_catalog(), "entry"));
  EXPECT_EQ(entry.rule.low, Ratio(2.0));
  EXPECT_EQ(entry.rule.high, Ratio(3.0));
  EXPECT_FALSE(entry.rule.open_ended);
  EXPECT_TRUE(value_of(tier_mix(own_catalog(), "large")).rule.open_ended);
}

TEST(Tiers, AnUnknownNameIsToldTheKnownOnes) {
  const auto mix = tier_mix(own_catalog(), "larger");
  ASSERT_FALSE(mix);
  EXPECT_NE(to_text(mix.error()).find("did you mean \"large\""), std::string::npos);
  EXPECT_FALSE(tier_mix(own_catalog(), "../gpus"));
}

}  // namespace
}  // namespace steelyard::catalog
