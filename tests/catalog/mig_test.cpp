#include "catalog/mig.h"

#include <gtest/gtest.h>

#include "catalog_fixture.h"

namespace steelyard::catalog {
namespace {

using namespace literals;

facts::MigTable table_of(const char* gpu) {
  return value_of(mig_table(own_catalog(), value_of(own_catalog().gpu(gpu))));
}

TEST(Mig, EveryCardOfTheFileIsInTheCatalogueAndDividesSensibly) {
  for (const char* gpu :
       {"a100-sxm-40gb", "a100-pcie-40gb", "a100-sxm-80gb", "a100-pcie-80gb", "a30",
        "h100-sxm-80gb", "h100-pcie-80gb", "h100-nvl-94gb", "h200-sxm-141gb", "b200"}) {
    const facts::MigTable table = table_of(gpu);
    EXPECT_FALSE(table.source.empty()) << gpu;
    const Bytes card = *value_of(own_catalog().gpu(gpu)).memory;
    for (const facts::MigProfile& profile : table.profiles) {
      EXPECT_LE(profile.memory, card * profile.memory_share + 1_GiB) << gpu << profile.name;
      EXPECT_GT(profile.memory, Bytes()) << gpu << profile.name;
      EXPECT_LT(profile.sm_share, Ratio(0.6)) << gpu << profile.name;
      for (const std::int64_t start : profile.starts) {
        EXPECT_LE(start + profile.width, table.memory_slices) << gpu << profile.name;
      }
    }
  }
}

TEST(Mig, AnH100sThirdProfileIsWhatTheDriverLists) {
  const facts::MigTable table = table_of("h100-sxm-80gb");
  const facts::MigProfile& profile = table.profiles.at(3);
  EXPECT_EQ(profile.name, "3g.40gb");
  EXPECT_EQ(profile.memory, 40448_MiB);  // 39.50 GiB
  EXPECT_EQ(profile.sm_share, Ratio(60.0 / 132.0));
  EXPECT_EQ(profile.memory_share, Ratio(0.5));
}

TEST(Mig, ACardThatDoesNotDivideIsRefused) {
  const auto table = mig_table(own_catalog(), value_of(own_catalog().gpu("rtx-4090")));
  ASSERT_FALSE(table);
  EXPECT_NE(to_text(table.error()).find("--time-slice"), std::string::npos);
}

}  // namespace
}  // namespace steelyard::catalog
