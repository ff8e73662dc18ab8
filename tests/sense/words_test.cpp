#include "sense/words.h"

#include <gtest/gtest.h>

#include "sense/devices.h"
#include "sense/mounts.h"

namespace steelyard::sense {
namespace {

using Numbers = std::vector<std::int64_t>;

TEST(Words, ListsOfTheKernel) {
  EXPECT_EQ(numbers_of_list("0-3,8"), (Numbers{0, 1, 2, 3, 8}));
  EXPECT_EQ(numbers_of_list(" 5 \n"), (Numbers{5}));
  EXPECT_TRUE(numbers_of_list("").empty());
  EXPECT_TRUE(numbers_of_list("3-1").empty());
  EXPECT_TRUE(numbers_of_list("1,two").empty());
  EXPECT_TRUE(numbers_of_list("-4").empty());
  EXPECT_TRUE(numbers_of_list("0-99999999999").empty()) << "no list is that long";
  EXPECT_EQ(list_of_numbers({0, 1, 2, 3, 8, 10, 11}), "0-3,8,10-11");
  EXPECT_EQ(list_of_numbers({}), "");
}

TEST(Words, NumbersAreWholeTexts) {
  EXPECT_EQ(whole("42"), 42);
  EXPECT_EQ(whole("42 kB"), std::nullopt);
  EXPECT_EQ(whole(""), std::nullopt);
  EXPECT_EQ(leading_number("32.0 GT/s PCIe"), 32.0);
  EXPECT_EQ(leading_number("Unknown"), std::nullopt);
  EXPECT_EQ(number_behind("cpu", "cpu12"), 12);
  EXPECT_EQ(number_behind("cpu", "cpufreq"), std::nullopt);
}

TEST(Words, ValuesBehindKeys) {
  EXPECT_EQ(value_in("a: 1\nMemTotal:  16 kB\n", "MemTotal"), "16 kB");
  EXPECT_EQ(value_in("MemTotalx: 1", "MemTotal"), std::nullopt);
  EXPECT_EQ(last_part("../../devices/pci0000:00/0000:00:03.0/"), "0000:00:03.0");
}

TEST(Mounts, SizesOfMemoryFileSystems) {
  EXPECT_EQ(size_option("rw,size=65536k"), Bytes(64 << 20));
  EXPECT_EQ(size_option("size=2g,mode=755"), Bytes(std::int64_t{2} << 30));
  EXPECT_EQ(size_option("rw,blksize=4k"), std::nullopt);
  EXPECT_EQ(size_option("rw,size=99999999999999999999g"), std::nullopt);
}

TEST(Mounts, TheLongestPathAboveHolds) {
  std::vector<facts::Mount> mounts(3);
  mounts[0].path = "/";
  mounts[1].path = "/data";
  mounts[2].path = "/data/set";
  EXPECT_EQ(mount_of(mounts, "/data/set/1.tar")->path, "/data/set");
  EXPECT_EQ(mount_of(mounts, "/data/settings")->path, "/data");
  EXPECT_EQ(mount_of(mounts, "/database")->path, "/");
  EXPECT_EQ(mount_of({}, "/data"), nullptr);
}

// PCI Express base specification: 2.5 and 5 GT/s carry 8 bits of 10, 8 to 32 GT/s 128 of 130.
TEST(Devices, RatesOfPciLinks) {
  EXPECT_NEAR(pci_rate(8.0, 16)->value(), 15.75e9, 0.01e9);
  EXPECT_NEAR(pci_rate(16.0, 16)->value(), 31.5e9, 0.02e9);
  EXPECT_NEAR(pci_rate(5.0, 4)->value(), 2e9, 1);
  EXPECT_EQ(pci_rate(0.0, 16), std::nullopt);
  EXPECT_EQ(pci_rate(8.0, 0), std::nullopt);
}

}  // namespace
}  // namespace steelyard::sense
