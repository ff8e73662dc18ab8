#include "probe/conditions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/temporary_folder.h"

namespace steelyard::probe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ConditionsTest : public testing::Test {
 protected:
  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((folder_.path() / path).parent_path());
    folder_.write(path, text);
  }
  facts::MeasuringConditions seen() const { return conditions_of(sense::Tree(folder_.path()), 16); }
  TemporaryFolder folder_;
};

TEST_F(ConditionsTest, AQuietMachineHasNoWarning) {
  put("proc/loadavg", "0.40 0.30 0.20 1/300 4242\n");
  put("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
  put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  const facts::MeasuringConditions conditions = seen();
  EXPECT_EQ(conditions.threads, 16);
  EXPECT_DOUBLE_EQ(conditions.load_average, 0.4);
  EXPECT_EQ(conditions.governor, "performance");
  EXPECT_EQ(conditions.transparent_huge_pages, "madvise");
  EXPECT_TRUE(conditions.warnings.empty());
}

TEST_F(ConditionsTest, OthersThePowersaverAndSmallPagesAreNamed) {
  put("proc/loadavg", "9.00 8.00 7.00 9/300 4242\n");
  put("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
  put("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
  EXPECT_THAT(seen().warnings,
              ElementsAre(HasSubstr("load average 9.0 on 16 threads"), HasSubstr("powersave"),
                          HasSubstr("huge pages are switched off")));
}

TEST_F(ConditionsTest, AKernelThatShowsNothingIsNoError) {
  EXPECT_EQ(seen().governor, "");
  EXPECT_TRUE(seen().warnings.empty());
}

TEST(SchedulableThreads, AreAtLeastOne) {
  EXPECT_GE(schedulable_threads().size(), 1U);
}

}  // namespace
}  // namespace steelyard::probe
