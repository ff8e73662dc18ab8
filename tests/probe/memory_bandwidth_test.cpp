#include "probe/memory_bandwidth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "codec/temporary_folder.h"
#include "probe/byte_scan.h"
#include "probe/conditions.h"
#include "probe/host_rates.h"
#include "probe/memory_kernels.h"
#include "probe/pages.h"

namespace steelyard::probe {
namespace {

using testing::ElementsAre;
using namespace literals;

class NodesTest : public testing::Test {
 protected:
  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((folder_.path() / path).parent_path());
    folder_.write(path, text);
  }
  TemporaryFolder folder_;
  sense::Tree tree_{folder_.path()};
};

TEST_F(NodesTest, HaveTheThreadsThatThisProcessMayUse) {
  put("sys/devices/system/node/online", "0-1,4\n");
  put("sys/devices/system/node/has_memory", "0,4\n");
  put("sys/devices/system/node/node0/cpulist", "0-3,8-11\n");
  put("sys/devices/system/node/node1/cpulist", "4-7\n");
  put("sys/devices/system/node/node4/cpulist", "\n");
  const auto nodes = node_threads(tree_, {1, 2, 6, 9});
  ASSERT_EQ(nodes.size(), 3U);
  EXPECT_EQ(nodes[0].node, 0);
  EXPECT_THAT(nodes[0].threads, ElementsAre(1, 2, 9));
  EXPECT_TRUE(nodes[0].has_memory);
  EXPECT_THAT(nodes[1].threads, ElementsAre(6));
  EXPECT_FALSE(nodes[1].has_memory);
  EXPECT_EQ(nodes[2].node, 4);
  EXPECT_TRUE(nodes[2].threads.empty());
  EXPECT_TRUE(nodes[2].has_memory);
}

TEST_F(NodesTest, AKernelWithoutNodesHasOne) {
  const auto nodes = node_threads(tree_, {0, 1});
  ASSERT_EQ(nodes.size(), 1U);
  EXPECT_THAT(nodes[0].threads, ElementsAre(0, 1));
  EXPECT_TRUE(nodes[0].has_memory);
}

TEST_F(NodesTest, CachesOfTheLastLevelAddUp) {
  // Two caches of 32 MiB, each shared by two threads; the second level does not count.
  for (int thread = 0; thread < 4; ++thread) {
    const std::string cache = "sys/devices/system/cpu/cpu" + std::to_string(thread) + "/cache/";
    put(cache + "index2/level", "2\n");
    put(cache + "index2/size", "1024K\n");
    put(cache + "index2/shared_cpu_list", std::to_string(thread) + "\n");
    put(cache + "index3/level", "3\n");
    put(cache + "index3/size", "32768K\n");
    put(cache + "index3/shared_cpu_list", thread < 2 ? "0-1\n" : "2-3\n");
  }
  EXPECT_EQ(last_level_cache(tree_, {0, 1, 2, 3}), 64_MiB);
  EXPECT_EQ(last_level_cache(tree_, {0, 1}), 32_MiB);
  EXPECT_EQ(last_level_cache(tree_, {7}), 0_B);
}

TEST(MemoryKernels, ComputeTheSameWithAllInstructions) {
  const std::size_t count = 4 * kKernelStep;
  for (const char* instructions : {"plain", "avx2", "avx512"}) {
    const MemoryKernels kernels = memory_kernels(instructions);
    if (kernels.read == nullptr) continue;  // not of this processor
    const auto pages = Pages::map(1_MiB, PageSize::small);
    ASSERT_TRUE(pages);
    double* const a = pages->as<double>().data();
    double* const b = a + count;
    double* const c = b + count;
    for (std::size_t i = 0; i < count; ++i) a[i] = static_cast<double>(i);
    EXPECT_EQ(kernels.read(a, count), 255.0 * 256.0 / 2) << instructions;
    kernels.write(b, count, 3.0);
    EXPECT_EQ(std::accumulate(b, b + count, 0.0), 3.0 * 256) << instructions;
    kernels.triad(c, a, b, 2.0, count);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(c[i], static_cast<double>(i) + 6.0) << instructions;
    }
    kernels.copy(b, c, count);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(b[i], c[i]) << instructions;
    }
    EXPECT_EQ(c[count], 0.0) << instructions << " wrote behind its end";
  }
}

TEST(MemoryKernels, ThereIsOneForEveryProcessor) {
  EXPECT_NE(memory_kernels().read, nullptr);
  EXPECT_EQ(memory_kernels("of no processor").read, nullptr);
}

TEST(MemoryBandwidth, EveryFigureIsThereAndSaysHow) {
  const std::vector<int> threads = schedulable_threads();
  const auto seen = measure_memory({.nodes = {{.node = 0, .threads = threads}},
                                    .last_level_cache = 1_MiB,
                                    .available = 16_MiB,
                                    .budget = Seconds(0.2)});
  ASSERT_TRUE(seen) << to_text(seen.error());
  EXPECT_EQ(seen->buffer, 4_MiB);
  ASSERT_EQ(seen->rates.size(), threads.size() > 1 ? 2U : 1U);
  for (const facts::MemoryBandwidth& rate : seen->rates) {
    for (const auto* figure : {&rate.read, &rate.write, &rate.copy, &rate.triad}) {
      EXPECT_GT(figure->median.value(), 0);
      EXPECT_GE(figure->high, figure->median);
      EXPECT_LE(figure->low, figure->median);
      EXPECT_GE(figure->runs, 1);
      EXPECT_NE(figure->how, "");
    }
  }
}

TEST(MemoryBandwidth, ABufferInTheCacheIsNamed) {
  const auto seen = measure_memory({.nodes = {{.node = 0, .threads = {schedulable_threads()[0]}}},
                                    .last_level_cache = 64_MiB,
                                    .available = 16_MiB,
                                    .budget = Seconds(0.05)});
  ASSERT_TRUE(seen);
  EXPECT_THAT(seen->rates[0].read.warning.value_or(""),
              testing::HasSubstr("not far above the caches"));
}

TEST(ByteScan, CountsAtAllLengths) {
  // More than 255 rounds of 256 bytes: counts in bytes must not overflow.
  std::vector<std::byte> text(300 * 256 + 77, std::byte{'\n'});
  EXPECT_EQ(count_byte(text, std::byte{'\n'}), text.size());
  EXPECT_EQ(count_byte(text, std::byte{'x'}), 0U);
  text[5] = text.back() = std::byte{'x'};
  EXPECT_EQ(count_byte(text, std::byte{'x'}), 2U);
  EXPECT_EQ(count_byte(std::span(text).first(6), std::byte{'x'}), 1U);
  EXPECT_EQ(count_byte({}, std::byte{'x'}), 0U);
}

TEST(HostRates, AreThereForOneThreadAndForAll) {
  const std::vector<int> threads = schedulable_threads();
  const auto seen = measure_host(
      {.threads = threads, .available = 64_MiB, .last_level_cache = 1_MiB, .budget = Seconds(0.2)});
  ASSERT_TRUE(seen);
  ASSERT_EQ(seen->size(), threads.size() > 1 ? 2U : 1U);
  EXPECT_EQ(seen->front().threads, 1);
  for (const facts::HostRate& rate : *seen) {
    for (const auto* figure :
         {&rate.byte_scan, &rate.memory_copy, &rate.first_touch, &rate.first_touch_huge}) {
      EXPECT_GT(figure->median.value(), 0) << figure->how;
    }
    // A limit of locked memory may forbid it; then the figure says so.
    EXPECT_TRUE(rate.lock_pages.runs > 0 || rate.lock_pages.warning.has_value());
  }
}

}  // namespace
}  // namespace steelyard::probe
