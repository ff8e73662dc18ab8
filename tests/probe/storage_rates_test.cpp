#include "probe/storage_rates.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <set>
#include <thread>

#include "codec/temporary_folder.h"
#include "probe/interruption.h"
#include "probe/record_rates.h"

namespace steelyard::probe {
namespace {

using testing::Contains;
using testing::HasSubstr;
using namespace literals;

bool nothing_in(const std::filesystem::path& folder) {
  return std::filesystem::directory_iterator(folder) == std::filesystem::directory_iterator();
}

TEST(PermittedTestFile, IsATenthOfWhatIsFreeAtMost) {
  const auto size = [](Bytes asked, Bytes free) {
    return permitted_test_file(asked, {.total = free * 2, .free = free});
  };
  EXPECT_EQ(*size(1_GiB, 100_GiB), 1_GiB);
  EXPECT_EQ(*size(20_GiB, 100_GiB), 10_GiB);
  EXPECT_EQ(*size(1_GiB, 170_MiB), 16_MiB);  // 17 MiB in whole requests
  ASSERT_FALSE(size(1_GiB, 100_MiB));
  EXPECT_EQ(size(1_GiB, 100_MiB).error().code, ErrorCode::too_large);
  EXPECT_THAT(to_text(size(1_GiB, 100_MiB).error()), HasSubstr("100.0 MiB free"));
  EXPECT_FALSE(size(1_GiB, 0_B));
}

TEST(Offsets, SequentialOnesFollowAndBeginAnew) {
  const IoPattern pattern{.request = 4_KiB, .begin = 8_KiB, .end = 17_KiB};  // two whole requests
  Offsets offsets(pattern);
  EXPECT_EQ(offsets.next(), 8192);
  EXPECT_EQ(offsets.next(), 12288);
  EXPECT_EQ(offsets.next(), 8192);
  IoPattern once = pattern;
  once.once = true;
  Offsets few(once);
  EXPECT_EQ(few.next(), 8192);
  EXPECT_EQ(few.next(), 12288);
  EXPECT_EQ(few.next(), -1);
  IoPattern later = pattern;
  later.first = 3;
  EXPECT_EQ(Offsets(later).next(), 12288);
}

TEST(Offsets, RandomOnesMeetTheWholeRange) {
  const IoPattern pattern{.order = Order::random, .request = 4_KiB, .begin = 4_KiB, .end = 68_KiB};
  Offsets offsets(pattern);
  std::set<std::int64_t> met;
  for (int i = 0; i < 400; ++i) {
    const std::int64_t offset = offsets.next();
    EXPECT_EQ(offset % 4096, 0);
    met.insert(offset);
  }
  EXPECT_EQ(met.size(), 16U);
  EXPECT_EQ(*met.begin(), 4096);
  EXPECT_EQ(*met.rbegin(), 65536);
}

TEST(Offsets, ARangeBelowOneRequestHasNone) {
  EXPECT_EQ(Offsets({.request = 4_KiB, .end = 4095_B}).next(), -1);
}

// The engines that this kernel has.
std::vector<std::unique_ptr<IoEngine>> engines() {
  std::vector<std::unique_ptr<IoEngine>> all;
  all.push_back(make_thread_engine());
  if (try_io_uring() == 0) all.push_back(make_uring_engine());
  return all;
}

TEST(IoEngine, WritesAFileOnceAndReadsItWhole) {
  const TemporaryFolder folder;
  for (const auto& engine : engines()) {
    const auto file = TestFile::create(folder.path());
    ASSERT_TRUE(file);
    IoPattern pattern{.file = file->descriptor(),
                      .direction = Direction::write,
                      .request = 64_KiB,
                      .depth = 4,
                      .end = 1_MiB,
                      .duration = Seconds(600),
                      .once = true};
    const auto written = engine->run(pattern);
    ASSERT_TRUE(written) << engine->name() << to_text(written.error());
    EXPECT_EQ(written->requests, 16);
    EXPECT_EQ(written->moved, 1_MiB);
    EXPECT_EQ(lseek(file->descriptor(), 0, SEEK_END), (1_MiB).value());
    pattern.direction = Direction::read;
    const auto read = engine->run(pattern);
    ASSERT_TRUE(read) << engine->name();
    EXPECT_EQ(read->moved, 1_MiB);
    EXPECT_EQ(read->latencies.size(), 16U);
    EXPECT_GT(read->elapsed.value(), 0);
  }
}

TEST(IoEngine, AFileThatEndsTooSoonIsAnErrorAndNoHang) {
  const TemporaryFolder folder;
  const auto path = folder.write("short", std::string(10000, 'x'));
  for (const auto& engine : engines()) {
    const int file = open(path.c_str(), O_RDONLY);
    const auto read = engine->run(
        {.file = file, .request = 4_KiB, .depth = 8, .end = 1_MiB, .duration = Seconds(600)});
    close(file);
    ASSERT_FALSE(read) << engine->name();
    EXPECT_THAT(to_text(read.error()), HasSubstr("reading 4.0 KiB"));
    EXPECT_FALSE(engine->run({.file = -1, .request = 4_KiB, .end = 8_KiB})) << engine->name();
  }
}

TEST(IoEngine, ThreadsTakeOverWhereIoUringIsForbidden) {
  for (const int refusal : {ENOSYS, EPERM}) {
    std::string reason;
    EXPECT_EQ(make_io_engine(reason, [=] { return -refusal; })->name(), "threads");
    EXPECT_THAT(reason, HasSubstr("io_uring cannot be used"));
  }
}

TEST(TestFile, LeavesNothingBehind) {
  const TemporaryFolder folder;
  {
    const auto file = TestFile::create(folder.path());
    ASSERT_TRUE(file);
    EXPECT_TRUE(nothing_in(folder.path()));
    EXPECT_TRUE(file->reserve(1_MiB));
  }
  EXPECT_TRUE(nothing_in(folder.path()));
  EXPECT_FALSE(TestFile::create(folder.path() / "none"));
}

TEST(SmallFiles, AreReadAndGoAway) {
  const TemporaryFolder folder;
  {
    const auto files = SmallFiles::create(folder.path(), 5, 3_KiB);
    ASSERT_TRUE(files);
    EXPECT_FALSE(nothing_in(folder.path()));
    files->forget_pages();
    std::vector<char> content;
    for (std::size_t i = 0; i < files->count(); ++i) {
      EXPECT_TRUE(files->read(i, content));
      EXPECT_EQ(content.size(), 3072U);
    }
    std::filesystem::remove_all(files->folder());
    EXPECT_FALSE(files->read(0, content));
  }
  EXPECT_TRUE(nothing_in(folder.path()));
  EXPECT_FALSE(SmallFiles::create(folder.path() / "none", 1, 1_KiB));
}

StorageOptions small_options(const std::filesystem::path& folder) {
  return {.folder = folder, .test_file = 16_MiB, .budget = Seconds(0.3)};
}

TEST(StorageRates, AFullDiskIsRefusedBeforeAnythingIsWritten) {
  const TemporaryFolder folder;
  StorageOptions options = small_options(folder.path());
  options.space = [](const std::filesystem::path&) -> Result<FileSystemSpace> {
    return FileSystemSpace{.total = 1_TiB, .free = 150_MiB};
  };
  const auto seen = measure_storage(options);
  ASSERT_FALSE(seen);
  EXPECT_EQ(seen.error().code, ErrorCode::too_large);
  EXPECT_TRUE(nothing_in(folder.path()));
}

TEST(StorageRates, AFolderThatIsNoneIsAnError) {
  EXPECT_FALSE(measure_storage(small_options("/there/is/no/such/folder")));
}

TEST(StorageRates, EveryPatternIsThereWithBothEngines) {
  const TemporaryFolder folder;
  for (const bool forbidden : {false, true}) {
    StorageOptions options = small_options(folder.path());
    if (forbidden) options.ring = [] { return -EPERM; };
    const auto seen = measure_storage(options);
    ASSERT_TRUE(seen) << to_text(seen.error());
    EXPECT_TRUE(nothing_in(folder.path()));
    EXPECT_EQ(seen->test_file, 16_MiB);
    std::set<facts::StoragePattern> patterns;
    for (const facts::StorageRate& rate : seen->rates) {
      patterns.insert(rate.pattern);
      EXPECT_GT(rate.rate.median.value(), 0) << rate.rate.how;
      EXPECT_NEAR(rate.operations.value() * rate.request.real(), rate.rate.median.value(),
                  1e-6 * rate.rate.median.value());
      EXPECT_LE(rate.latency_median, rate.latency_p99);
    }
    EXPECT_TRUE(patterns.contains(facts::StoragePattern::sequential_write));
    EXPECT_TRUE(patterns.contains(facts::StoragePattern::sequential_read));
    EXPECT_TRUE(patterns.contains(facts::StoragePattern::random_read));
    EXPECT_TRUE(patterns.contains(facts::StoragePattern::small_files));
    if (forbidden) {
      EXPECT_EQ(seen->engine, "threads");
      EXPECT_THAT(seen->warnings, Contains(HasSubstr("io_uring cannot be used")));
    }
  }
}

TEST(RecordRates, AreOfAllSizesThatFitByOneAndByAll) {
  const TemporaryFolder folder;
  folder.write("records", std::string(static_cast<std::size_t>((4_MiB).value()), 'r'));
  const int file = open((folder.path() / "records").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  const auto seen =
      measure_records({.file = file, .range = 4_MiB, .threads = 2, .budget = Seconds(0.3)});
  close(file);
  ASSERT_EQ(seen.size(), 4U) << "8 MiB would be needed for records of 1 MiB";
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].record, i < 2 ? 8_KiB : 256_KiB);
    EXPECT_EQ(seen[i].workers, i % 2 == 0 ? 1 : 2);
    // A machine that is busy may not come to a second batch.
    EXPECT_EQ(seen[i].rate.median.value() > 0, seen[i].rate.runs > 0);
  }
}

TEST(CacheWarnings, NameMemoryGuestsServersAndRatesThatNoDriveHas) {
  facts::StorageMeasurements seen{.direct = true, .test_file = 1_GiB};
  EXPECT_TRUE(cache_warnings(seen, {.name = "ext4"}, false).empty());
  EXPECT_THAT(cache_warnings(seen, {.name = "tmpfs", .in_memory = true}, true),
              testing::ElementsAre(HasSubstr("tmpfs lies in memory")));
  EXPECT_THAT(cache_warnings(seen, {.name = "ext4"}, true),
              testing::ElementsAre(HasSubstr("the host of this virtual machine")));
  EXPECT_THAT(cache_warnings(seen, {.name = "nfs", .remote = true}, false),
              testing::ElementsAre(HasSubstr("the server")));
  facts::StorageRate quick{.pattern = facts::StoragePattern::random_read, .request = 4_KiB};
  quick.latency_median = 9_us;
  seen.rates = {quick};
  EXPECT_THAT(cache_warnings(seen, {.name = "ext4"}, false),
              testing::ElementsAre(HasSubstr("faster than flash")));
  quick.latency_median = 80_us;
  quick.rate.median = BytesPerSecond(20e9);
  seen.rates = {quick};
  EXPECT_THAT(cache_warnings(seen, {.name = "ext4"}, false),
              testing::ElementsAre(HasSubstr("15.75 GB/s")));
  seen.rates.clear();
  seen.direct = false;
  EXPECT_THAT(cache_warnings(seen, {.name = "overlay"}, false),
              testing::ElementsAre(HasSubstr("overlay takes no O_DIRECT")));
}

int caught = 0;

TEST(Interruption, EndsRunsAndPassesTheSignalOn) {
  struct sigaction own {};
  struct sigaction before {};
  own.sa_handler = [](int) { ++caught; };
  sigaction(SIGTERM, &own, &before);
  caught = 0;
  {
    const Interruption outer;
    {
      const Interruption inner;
      EXPECT_FALSE(interrupted());
      raise(SIGTERM);
      EXPECT_TRUE(interrupted());
    }
    EXPECT_TRUE(interrupted());
    EXPECT_EQ(caught, 0);
  }
  EXPECT_EQ(caught, 1);
  EXPECT_FALSE(interrupted());
  sigaction(SIGTERM, &before, nullptr);
}

// Waits until the folder holds something; false where the child ended before.
bool wait_for_files(const std::filesystem::path& folder, pid_t child) {
  while (nothing_in(folder)) {
    if (waitpid(child, nullptr, WNOHANG) != 0) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

TEST(Interruption, CleansUpAfterSigint) {
  const TemporaryFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    StorageOptions options = small_options(folder.path());
    options.budget = Seconds(100);  // small files lie there for ten seconds
    (void)measure_storage(options);
    _exit(3);
  }
  ASSERT_TRUE(wait_for_files(folder.path(), child));
  kill(child, SIGINT);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
  EXPECT_TRUE(nothing_in(folder.path()));
}

}  // namespace
}  // namespace steelyard::probe
