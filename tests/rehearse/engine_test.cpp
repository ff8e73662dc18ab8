#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "rehearse/host_memory.h"
#include "rehearse/pictures.h"
#include "rehearse/rehearse.h"

namespace steelyard::rehearse {
namespace {

using facts::FaultKind;
using facts::Rehearsal;
using facts::RehearsalEnd;
using testing::add_file;
using testing::Bytes8;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::Folder;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::jpeg_folder;

// Small and short: as many samples as are asked for, and no longer than a minute if all hangs.
Settings small(std::int64_t samples) {
  return {.accelerators = 2,
          .batch = 4,
          .workers = 2,
          .duration = Seconds(60),
          .most_samples = samples,
          .most_depth = 4,
          .shape = {.side = 32}};
}

Rehearsal run(const Dataset& dataset, const Settings& settings, const Injection& injection = {}) {
  const auto result = rehearse(dataset, settings, {}, injection);
  if (!result) {
    ADD_FAILURE() << to_text(result.error());
    return {};
  }
  return *result;
}

std::int64_t count_of(const Rehearsal& rehearsal, FaultKind kind) {
  for (const auto& fault : rehearsal.faults) {
    if (fault.kind == kind) return fault.count;
  }
  return 0;
}

TEST(Rehearse, PicturesReachTheAccelerators) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 20);
  const Rehearsal rehearsal = run(dataset, small(100));
  EXPECT_EQ(rehearsal.end, RehearsalEnd::samples);
  EXPECT_GE(rehearsal.samples.value(), 100);
  EXPECT_GE(rehearsal.epochs, 100.0 / 20);
  EXPECT_GT(rehearsal.rate.value(), 0);
  EXPECT_THAT(rehearsal.faults, IsEmpty());
  ASSERT_EQ(rehearsal.stages.size(), 3U);
  EXPECT_EQ(rehearsal.stages[0].name, "read");
  EXPECT_EQ(rehearsal.stages[1].name, "decode");
  EXPECT_EQ(rehearsal.stages[1].threads, 2);
  EXPECT_TRUE(rehearsal.stages[1].can);
  EXPECT_GT(rehearsal.stages[1].cpu.value(), 0);
  EXPECT_FALSE(rehearsal.utilization_mean) << "no step time: nothing to be used";
  // 4 samples of 32 x 32 x 3 bytes, 2 accelerators with 2 batches each, in whole pages.
  EXPECT_EQ(rehearsal.memory.batches, Bytes(2 * 2 * 4 * 32 * 32 * 3));
  EXPECT_GT(rehearsal.memory.peak.value(), 0);
}

TEST(Rehearse, ThreadsReadWhereTheRingIsRefused) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  for (const int error : {ENOSYS, EPERM}) {
    const Rehearsal rehearsal = run(dataset, small(60), {.ring_error = error});
    EXPECT_EQ(rehearsal.setting.reader, "threads");
    EXPECT_THAT(rehearsal.notes, Contains(HasSubstr("threads read instead")));
    EXPECT_GE(rehearsal.samples.value(), 60);
  }
}

TEST(Rehearse, DirectReadsGiveTheSame) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  Settings settings = small(60);
  settings.direct = true;  // or a note, where the temporary folder is no real file system
  for (const int error : {0, EPERM}) {
    const Rehearsal rehearsal = run(dataset, settings, {.ring_error = error});
    EXPECT_GE(rehearsal.samples.value(), 60);
    EXPECT_THAT(rehearsal.faults, IsEmpty());
  }
}

TEST(Rehearse, RecordsOfOneFileAreReadWhereTheyLie) {
  const Folder folder;
  Dataset dataset;
  dataset.encoding = Encoding::jpeg;
  Bytes8 shard;
  for (int i = 0; i < 30; ++i) {
    shard.resize(shard.size() + 37 + static_cast<std::size_t>(i) * 100);  // odd places
    const Bytes8 image = testing::jpeg(40 + i, 40);
    dataset.records.push_back({.file = 0, .offset = shard.size(), .bytes = image.size()});
    shard.insert(shard.end(), image.begin(), image.end());
  }
  dataset.files = {folder.write("shard.tar", shard)};
  for (const bool direct : {false, true}) {
    for (const int error : {0, ENOSYS}) {
      Settings settings = small(90);
      settings.direct = direct;
      const Rehearsal rehearsal = run(dataset, settings, {.ring_error = error});
      EXPECT_GE(rehearsal.samples.value(), 90);
      EXPECT_THAT(rehearsal.faults, IsEmpty()) << rehearsal.faults[0].first[0];
    }
  }
}

TEST(Rehearse, LargeRecordsHaveRoomOfTheirOwn) {
  const Folder folder;
  Dataset dataset;
  for (int i = 0; i < 100; ++i) {
    const std::size_t bytes = i == 50 ? 300'000 : 1000;
    add_file(dataset, folder.write("r" + std::to_string(i), Bytes8(bytes, 1)), bytes);
  }
  const Rehearsal rehearsal = run(dataset, small(400));
  EXPECT_GE(rehearsal.epochs, 4);
  EXPECT_THAT(rehearsal.faults, IsEmpty());
  // Slots of a page each (4 to read into, 2 to decode from), one large record at a time and more.
  EXPECT_GE(rehearsal.memory.read_buffers.value(), 6 * 4096 + 300'000);
  EXPECT_LT(rehearsal.memory.read_buffers.value(), 6 * 300'000 + 6 * 4096 + 6 * 4096);
}

TEST(Rehearse, TheFirstFaultEndsItAndIsNamed) {
  const Folder folder;
  Dataset dataset = jpeg_folder(folder, 5);
  folder.write("image3.jpg", Bytes8(dataset.records[3].bytes, 0x55));
  const Rehearsal rehearsal = run(dataset, small(10'000'000));
  EXPECT_EQ(rehearsal.end, RehearsalEnd::fault);
  EXPECT_GE(count_of(rehearsal, FaultKind::corrupt), 1);
  EXPECT_THAT(rehearsal.faults[0].first[0], HasSubstr("image3.jpg: JPEG: Not a JPEG file"));
}

TEST(Rehearse, FaultsAreSkippedCountedAndNamed) {
  const Folder folder;
  Dataset dataset = jpeg_folder(folder, 12);
  folder.write("image1.jpg", Bytes8(dataset.records[1].bytes, 0x55));
  folder.write("image2.jpg", Bytes8(20, 0xff));  // shorter than it was
  std::filesystem::remove(folder.path() / "image3.jpg");
  for (const int ring_error : {0, ENOSYS}) {
    Settings settings = small(180);
    settings.skip_faults = true;
    const Rehearsal rehearsal =
        run(dataset, settings, {.ring_error = ring_error, .read_error = [](std::uint64_t record) {
                                  return record == 4 ? EIO : 0;
                                }});
    EXPECT_EQ(rehearsal.end, RehearsalEnd::samples);
    EXPECT_GE(count_of(rehearsal, FaultKind::corrupt), 10);
    EXPECT_GE(count_of(rehearsal, FaultKind::truncated), 10);
    EXPECT_GE(count_of(rehearsal, FaultKind::vanished), 10);
    EXPECT_GE(count_of(rehearsal, FaultKind::read_error), 10);
    for (const auto& fault : rehearsal.faults) EXPECT_LE(fault.first.size(), 5U);
    EXPECT_THAT(rehearsal.faults[2].first[0], HasSubstr("image3.jpg: No such file"));
    EXPECT_THAT(rehearsal.faults[3].first[0], HasSubstr("Input/output error"));
  }
}

TEST(Rehearse, NothingButFaultsEndsAndMemoryStays) {
  const Folder folder;
  // One broken image, cut in the middle of its pixels, ten thousand times.
  Bytes8 image = testing::jpeg(64, 64);
  image.resize(image.size() / 2);
  const std::string path = folder.write("broken.jpg", image);
  Dataset dataset;
  dataset.files = {path};
  dataset.encoding = Encoding::jpeg;
  dataset.records.assign(10'000, {.file = 0, .offset = 0, .bytes = image.size()});
  Settings settings = small(1'000'000);
  settings.skip_faults = true;
  (void)run(dataset, settings);
  const auto before = HostMemory().read().anonymous;
  const Rehearsal rehearsal = run(dataset, settings);
  const auto after = HostMemory().read().anonymous;
  EXPECT_EQ(rehearsal.end, RehearsalEnd::fault);
  EXPECT_GE(count_of(rehearsal, FaultKind::corrupt), 10'000);
  EXPECT_EQ(rehearsal.samples.value(), 0);
  ASSERT_TRUE(before && after);
#ifdef __SANITIZE_ADDRESS__
  constexpr std::int64_t kMost = 64
                                 << 20;  // freed memory stays in quarantine; leaks are told apart
#else
  constexpr std::int64_t kMost = 4 << 20;
#endif
  EXPECT_LT((*after - *before).value(), kMost);
}

TEST(Rehearse, BeyondTheLimitIsRefusedBeforeItStarts) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 3);
  Settings settings = small(10);
  settings.batch = 100'000;
  settings.memory_limit = Bytes(1 << 30);
  const auto result = rehearse(dataset, settings);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::too_large);
  EXPECT_THAT(to_text(result.error()), HasSubstr("the limit of --memory-limit"));
  const auto expected = forecast(dataset, settings);
  ASSERT_TRUE(expected);
  // 1,228,800,000 bytes are 585.9 huge pages.
  EXPECT_EQ(expected->batches, Bytes(std::int64_t{586} << 21));
}

TEST(Rehearse, SettingsOutOfRangeAreRefused) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 3);
  Settings settings = small(10);
  settings.workers = 0;
  EXPECT_THAT(to_text(rehearse(dataset, settings).error()), HasSubstr("--workers: found 0"));
  EXPECT_FALSE(rehearse(Dataset{}, small(10)));
}

TEST(Rehearse, TheWatcherEndsItInOrder) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 3);
  Settings settings = small(10);
  settings.most_samples.reset();
  settings.step_time = Seconds(0.001);
  int calls = 0;
  const auto result = rehearse(dataset, settings, [&](const Progress&) { return ++calls < 2; });
  ASSERT_TRUE(result);
  EXPECT_EQ(result->end, RehearsalEnd::signal);
  EXPECT_EQ(calls, 2);
}

TEST(Rehearse, AStepLongerThanTheRunDoesNotHoldItUp) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 3);
  Settings settings = small(10);
  settings.most_samples.reset();
  settings.step_time = Seconds(1000);
  settings.duration = Seconds(0.3);
  const Rehearsal rehearsal = run(dataset, settings);
  EXPECT_EQ(rehearsal.end, RehearsalEnd::time);
  EXPECT_LT(rehearsal.elapsed.value(), 100);
  EXPECT_FALSE(rehearsal.utilization_mean) << "no step has ended";
}

TEST(Rehearse, ASlowDiskIsWhatAcceleratorsWaitFor) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 6);
  Settings settings = small(48);
  settings.step_time = Seconds(0.001);
  const Rehearsal rehearsal =
      run(dataset, settings, {.read_delay = [](std::uint64_t) { return Seconds(0.01); }});
  EXPECT_EQ(rehearsal.limited_by, "read");
  ASSERT_TRUE(rehearsal.utilization_least);
  // 8 samples of a step of both come every 80 ms at best; a step takes 1 ms.
  EXPECT_LT(rehearsal.utilization_least->value(), 0.3);
  EXPECT_GT(rehearsal.stages[1].waits_for_data.value(), 0);
}

}  // namespace
}  // namespace steelyard::rehearse
