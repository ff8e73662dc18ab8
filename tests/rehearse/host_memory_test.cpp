#include "rehearse/host_memory.h"

#include <gtest/gtest.h>

#include "rehearse/scratch.h"

namespace steelyard::rehearse {
namespace {

using testing::Scratch;

constexpr const char* kStatus = "VmRSS:\t  5000 kB\nRssAnon:\t  2048 kB\nRssFile:\t 100 kB\n";
constexpr const char* kMemory = "MemTotal: 8388608 kB\nMemAvailable:  4194304 kB\n";

TEST(HostMemory, SecondVersionOfControlGroups) {
  const Scratch root;
  root.write("proc/self/status", kStatus);
  root.write("proc/meminfo", kMemory);
  root.write("proc/self/cgroup", "0::/jobs/one\n");
  root.write("sys/fs/cgroup/jobs/one/memory.current", "104857600\n");
  root.write("sys/fs/cgroup/jobs/one/memory.max", "max\n");
  root.write("sys/fs/cgroup/jobs/one/memory.stat", "anon 2097152\nfile 52428800\n");
  // 1 GiB for all jobs, of which 100 MiB are page cache and 202 MiB are not; 2 of these are ours.
  root.write("sys/fs/cgroup/jobs/memory.current", "316669952\n");
  root.write("sys/fs/cgroup/jobs/memory.max", "1073741824\n");
  root.write("sys/fs/cgroup/jobs/memory.stat", "anon 211812352\nfile 104857600\n");
  const HostMemory memory((sense::Tree(root.path())));
  EXPECT_EQ(memory.read().anonymous, Bytes(2 << 20));
  EXPECT_EQ(memory.read().group_page_cache, Bytes(50 << 20));
  EXPECT_EQ(memory.read().group_used, Bytes(100 << 20));
  const auto limit = memory.limit();
  ASSERT_TRUE(limit);
  EXPECT_EQ(limit->whose, "the control group");
  EXPECT_EQ(limit->bytes, Bytes((1024 - 200) * (std::int64_t{1} << 20)));
}

TEST(HostMemory, FirstVersionOfControlGroups) {
  const Scratch root;
  root.write("proc/self/status", kStatus);
  root.write("proc/meminfo", kMemory);
  root.write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/slurm/job\n0::/\n");
  const std::string group = "sys/fs/cgroup/memory/slurm/job/";
  root.write(group + "memory.usage_in_bytes", "12582912\n");
  root.write(group + "memory.limit_in_bytes", "67108864\n");
  root.write(group + "memory.stat", "cache 1\ntotal_cache 4194304\n");
  const auto limit = HostMemory(sense::Tree(root.path())).limit();
  ASSERT_TRUE(limit);
  // 64 MiB, less 12 charged without the 4 of page cache and our own 2.
  EXPECT_EQ(limit->bytes, Bytes((64 - 6) << 20));
}

TEST(HostMemory, WithoutALimitTheMachineBinds) {
  const Scratch root;
  root.write("proc/self/status", kStatus);
  root.write("proc/meminfo", kMemory);
  root.write("proc/self/cgroup", "4:memory:/\n");
  root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "12582912\n");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  const auto limit = HostMemory(sense::Tree(root.path())).limit();
  ASSERT_TRUE(limit);
  EXPECT_EQ(limit->whose, "the machine");
  EXPECT_EQ(limit->bytes, Bytes(4098 * (std::int64_t{1} << 20)));
  const Scratch nothing;
  EXPECT_FALSE(HostMemory(sense::Tree(nothing.path())).limit());
}

}  // namespace
}  // namespace steelyard::rehearse
