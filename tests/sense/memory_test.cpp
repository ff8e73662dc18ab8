// NUMA nodes below a folder that looks like a kernel's.
#include "sense/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace steelyard::sense {
namespace {

namespace fs = std::filesystem;

class NodesTest : public testing::Test {
 protected:
  NodesTest() : folder_(fs::temp_directory_path() / ("nodes." + std::to_string(getpid()))) {}
  ~NodesTest() override { fs::remove_all(folder_); }
  NodesTest(const NodesTest&) = delete;
  NodesTest& operator=(const NodesTest&) = delete;

  void write(const std::string& path, const std::string& text) const {
    const fs::path at = folder_ / path;
    fs::create_directories(at.parent_path());
    std::ofstream(at) << text << "\n";
  }

  fs::path folder_;
};

// Two sockets of two cores with two threads each, a node on each.
TEST_F(NodesTest, EachWithItsSocketAndCores) {
  const std::string nodes = "sys/devices/system/node/";
  write(nodes + "online", "0-1");
  write(nodes + "node0/cpulist", "0-1,4-5");
  write(nodes + "node0/meminfo", "Node 0 MemTotal:       1024 kB");
  write(nodes + "node1/cpulist", "2-3,6-7");
  for (int cpu = 0; cpu < 8; ++cpu) {
    const std::string topology = "sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    const int core = cpu % 4;
    write(topology + "physical_package_id", std::to_string(core / 2));
    write(topology + "core_cpus_list", std::to_string(core) + "," + std::to_string(core + 4));
  }
  const std::vector<facts::NumaNode> found = numa_nodes(Tree(folder_));
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].memory.value, Bytes(1024 * 1024));
  EXPECT_EQ(found[0].socket.value, 0);
  EXPECT_EQ(found[1].socket.value, 1);
  EXPECT_EQ(found[1].cores.value, 2);
}

TEST_F(NodesTest, UntoldStaysUnknown) {
  write("sys/devices/system/node/online", "0");
  write("sys/devices/system/node/node0/cpulist", "0-1");
  const std::vector<facts::NumaNode> found = numa_nodes(Tree(folder_));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_FALSE(found[0].socket);
  EXPECT_FALSE(found[0].cores);
}

}  // namespace
}  // namespace steelyard::sense
