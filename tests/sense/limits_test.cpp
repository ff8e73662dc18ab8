// Control groups as containers and schedulers show them.
#include "sense/limits.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace steelyard::sense {
namespace {

constexpr std::int64_t kGib = std::int64_t{1} << 30;
const char* const kV2 = "31 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

class LimitsTest : public testing::Test {
 protected:
  LimitsTest()
      : root_(std::filesystem::temp_directory_path() / ("limits." + std::to_string(getpid()))) {
    memory_.total = {Bytes(64 * kGib), facts::Provenance::measured};
    processors_.threads = {32, facts::Provenance::measured};
    processors_.cores = {16, facts::Provenance::measured};
  }
  ~LimitsTest() override { std::filesystem::remove_all(root_); }
  LimitsTest(const LimitsTest&) = delete;
  LimitsTest& operator=(const LimitsTest&) = delete;

  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_ / path.substr(1);
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  void group(const std::string& cgroup, const std::string& mounts) const {
    write("/proc/self/cgroup", cgroup);
    write("/proc/self/mountinfo", mounts);
  }
  [[nodiscard]] facts::HostLimits limits(const Environment& environment = {}) const {
    const Tree tree(root_);
    return host_limits(tree, environment, mount_lines(tree), memory_, processors_);
  }

  std::filesystem::path root_;
  facts::HostMemory memory_;
  facts::Processors processors_;
};

TEST_F(LimitsTest, WithoutAnyTheMachineIsTheLimit) {
  const facts::HostLimits found = limits();
  EXPECT_EQ(found.memory.value, Bytes(64 * kGib));
  EXPECT_EQ(found.cpus.value, 32.0);
  EXPECT_EQ(found.cores.value, 16);
  EXPECT_TRUE(found.memory_limits.empty());
  EXPECT_EQ(found.cgroup, "");
}

TEST_F(LimitsTest, TheSmallestOnTheWayUpHolds) {
  group("0::/a/b/c", kV2);
  write("/sys/fs/cgroup/a/b/c/cgroup.controllers", "cpu memory");
  write("/sys/fs/cgroup/a/b/c/memory.max", "max");
  write("/sys/fs/cgroup/a/b/memory.max", std::to_string(16 * kGib));
  write("/sys/fs/cgroup/a/b/memory.current", std::to_string(kGib));
  write("/sys/fs/cgroup/a/memory.max", std::to_string(8 * kGib));
  write("/sys/fs/cgroup/a/memory.current", std::to_string(2 * kGib));
  write("/sys/fs/cgroup/a/b/cpu.max", "250000 100000");
  const facts::HostLimits found = limits();
  EXPECT_EQ(found.memory.value, Bytes(8 * kGib));
  EXPECT_EQ(found.memory.note, "limit of cgroup v2 /a");
  EXPECT_EQ(found.memory_used.value, Bytes(2 * kGib)) << "of the group that limits";
  EXPECT_EQ(found.memory_limits.size(), 2U);
  EXPECT_EQ(found.cpus.value, 2.5);
  EXPECT_EQ(found.cores.value, 2);
}

TEST_F(LimitsTest, AGroupOutsideOfTheNamespaceIsTheMountsRoot) {
  group("0::/../../other", kV2);
  write("/sys/fs/cgroup/cgroup.controllers", "memory");
  write("/sys/fs/cgroup/memory.max", std::to_string(4 * kGib));
  EXPECT_EQ(limits().memory.value, Bytes(4 * kGib));
}

TEST_F(LimitsTest, LimitsAboveTheMachineHoldNothing) {
  group("0::/a", kV2);
  write("/sys/fs/cgroup/a/cgroup.controllers", "memory");
  write("/sys/fs/cgroup/a/memory.max", std::to_string(128 * kGib));
  EXPECT_TRUE(limits().memory_limits.empty());
}

TEST_F(LimitsTest, BesideVersionOneTheSecondHasNoControllers) {
  group("4:memory:/job\n0::/job", std::string(kV2) +
                                      "32 24 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup "
                                      "rw,memory\n");
  write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", std::to_string(2 * kGib));
  write("/sys/fs/cgroup/job/memory.max", std::to_string(kGib));
  const facts::HostLimits found = limits();
  EXPECT_EQ(found.memory.note, "limit of cgroup v1 /job");
  EXPECT_EQ(found.cgroup, "hybrid");
}

TEST_F(LimitsTest, SlurmSaysMemoryInThreeWays) {
  EXPECT_EQ(limits({{"SLURM_JOB_ID", "1"}, {"SLURM_MEM_PER_NODE", "1024"}}).memory.value,
            Bytes(kGib));
  EXPECT_EQ(
      limits({{"SLURM_JOB_ID", "1"}, {"SLURM_MEM_PER_CPU", "512"}, {"SLURM_CPUS_ON_NODE", "4"}})
          .memory.value,
      Bytes(2 * kGib));
  EXPECT_EQ(
      limits({{"SLURM_JOB_ID", "1"}, {"SLURM_MEM_PER_GPU", "4096"}, {"SLURM_GPUS_ON_NODE", "2"}})
          .memory.value,
      Bytes(8 * kGib));
  const facts::HostLimits all = limits({{"SLURM_JOB_ID", "1"}, {"SLURM_MEM_PER_NODE", "0"}});
  EXPECT_TRUE(all.memory_limits.empty()) << "0 is all of the node";
  EXPECT_EQ(all.scheduler, "Slurm job 1");
}

TEST_F(LimitsTest, TwoThreadsOfACoreAreOneCore) {
  write("/proc/self/status", "Cpus_allowed_list:\t0-1,16-17");
  for (const char* cpu : {"0", "16"}) {
    write("/sys/devices/system/cpu/cpu" + std::string(cpu) + "/topology/core_cpus_list", "0,16");
  }
  for (const char* cpu : {"1", "17"}) {
    write("/sys/devices/system/cpu/cpu" + std::string(cpu) + "/topology/core_cpus_list", "1,17");
  }
  const facts::HostLimits found = limits();
  EXPECT_EQ(found.cpus.value, 4.0);
  EXPECT_EQ(found.cores.value, 2);
}

}  // namespace
}  // namespace steelyard::sense
