// Generated data sets: read back, the same for any number of threads, nothing left of what was
// stopped.
#include "rehearse/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "rehearse/scratch.h"

namespace steelyard::rehearse {
namespace {

using namespace literals;
using steelyard::testing::file_text;
using ::testing::HasSubstr;
using testing::opened;
using testing::Scratch;
using ::testing::SizeIs;

namespace fs = std::filesystem;

facts::StorageWorkload workload(facts::StorageFormat format, bool images, Bytes record,
                                std::int64_t samples_per_file) {
  facts::StorageWorkload made;
  made.id = "test/none";
  made.format = format;
  made.images = images;
  made.record = record;
  made.samples_per_file = Samples(samples_per_file);
  made.batch = Samples(2);
  made.computation = 1_s;
  return made;
}

std::map<std::string, std::string> content_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    files[fs::relative(entry.path(), folder).string()] = file_text(entry.path());
  }
  return files;
}

TEST(Generate, EachFormatIsReadBack) {
  using facts::StorageFormat;
  const std::tuple<StorageFormat, bool, const char*, Encoding> kCases[] = {
      {StorageFormat::npz, false, "npz", Encoding::raw},
      {StorageFormat::tfrecord, false, "tfrecord", Encoding::raw},
      {StorageFormat::tfrecord, true, "tfrecord", Encoding::jpeg},
      {StorageFormat::jpeg, true, "images", Encoding::jpeg},
      {StorageFormat::parquet, false, "parquet", Encoding::raw}};
  for (const auto& [format, images, name, encoding] : kCases) {
    const Scratch scratch;
    const bool single = format == StorageFormat::npz || format == StorageFormat::jpeg;
    const auto made = workload(format, images, 20'000_B, single ? 1 : 3);
    const Result<Generated> done =
        generate(made, scratch.path() / "data", {.size = 120'000_B, .threads = 2});
    ASSERT_TRUE(done) << to_text(done.error());
    EXPECT_EQ(done->bytes, 120'000_B) << name;
    EXPECT_EQ(done->files, single ? 6 : 2) << name;
    EXPECT_EQ(done->samples, Samples(6)) << name;
    const Dataset data = opened(scratch.path() / "data");
    EXPECT_EQ(data.format, name);
    EXPECT_EQ(data.encoding, encoding);
    EXPECT_EQ(data.faults_total, 0U);
    EXPECT_THAT(data.records, SizeIs(format == StorageFormat::parquet ? 2 : 6)) << name;
    if (images) {
      EXPECT_EQ(data.total, 120'000_B) << name;
    }
  }
}

TEST(Generate, DependsOnTheSeedAlone) {
  const Scratch scratch;
  auto made = workload(facts::StorageFormat::npz, false, 50'000_B, 1);
  made.record_stdev = 20'000_B;
  const auto run = [&](const char* name, std::uint64_t seed, std::int64_t threads) {
    const fs::path folder = scratch.path() / name;
    EXPECT_TRUE(generate(made, folder, {.size = 500'000_B, .seed = seed, .threads = threads}));
    return content_of(folder);
  };
  const auto one = run("one", 5, 1);
  EXPECT_THAT(one, SizeIs(10));
  EXPECT_EQ(one, run("four", 5, 4));
  EXPECT_NE(one, run("other", 6, 1));
}

// The mean of 4000 draws is within four of its own standard deviations (stdev / sqrt(4000)).
TEST(Generate, SizesHaveTheMeanAndDeviationAskedFor) {
  auto made = workload(facts::StorageFormat::npz, false, 1'000'000_B, 1);
  made.record_stdev = 200'000_B;
  constexpr int kDraws = 4000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const auto size = static_cast<double>(sample_bytes(made, 3, static_cast<std::uint64_t>(i)));
    sum += size;
    squares += size * size;
    EXPECT_GE(size, 100'000);
  }
  const double mean = sum / kDraws;
  EXPECT_NEAR(mean, 1e6, 4 * 2e5 / std::sqrt(kDraws));
  EXPECT_NEAR(std::sqrt(squares / kDraws - mean * mean), 2e5, 1e4);
}

TEST(Generate, ASizeBelowOneFileMakesASmallerFile) {
  const Scratch scratch;
  const auto made = workload(facts::StorageFormat::tfrecord, false, 1'000_B, 100);
  const Result<Generated> done = generate(made, scratch.path(), {.size = 5'000_B});
  ASSERT_TRUE(done) << to_text(done.error());
  EXPECT_EQ(done->samples, Samples(5));
  ASSERT_THAT(done->remarks, SizeIs(1));
  EXPECT_THAT(done->remarks[0], HasSubstr("has 100 samples"));
}

TEST(Generate, RefusesWhatWouldFillTheDiskOrMix) {
  const Scratch scratch;
  const auto made = workload(facts::StorageFormat::npz, false, 1'000_B, 1);
  const Result<Generated> large =
      generate(made, scratch.path(), {.size = Bytes(std::int64_t{1} << 60)});
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, ErrorCode::too_large);
  EXPECT_THAT(large.error().accepted, HasSubstr("a twentieth of the disk stays free"));
  EXPECT_EQ(generate(made, scratch.path(), {.size = 10_B}).error().code, ErrorCode::bad_input);
  scratch.write("mine.txt", "x");
  EXPECT_THAT(generate(made, scratch.path(), {.size = 5'000_B}).error().found,
              HasSubstr("mine.txt"));
}

TEST(Generate, StoppedItLeavesWholeFilesOnly) {
  const Scratch scratch;
  std::atomic<bool> stop = false;
  const auto made = workload(facts::StorageFormat::npz, false, 1'000'000_B, 1);
  const Result<Generated> done =
      generate(made, scratch.path(),
               {.size = 20'000'000_B, .threads = 2, .stop = &stop, .progress = [&](Bytes bytes) {
                  if (bytes >= 3'000'000_B) stop = true;
                }});
  ASSERT_TRUE(done) << to_text(done.error());
  EXPECT_TRUE(done->stopped);
  EXPECT_LT(done->files, 20);
  const auto files = content_of(scratch.path());
  EXPECT_EQ(static_cast<std::int64_t>(files.size()), done->files);
  for (const auto& [name, content] : files) {
    EXPECT_FALSE(name.starts_with('.')) << name;
    EXPECT_EQ(content.substr(0, 4), "PK\3\4");
    EXPECT_GT(content.size(), 1'000'000U);
  }
}

}  // namespace
}  // namespace steelyard::rehearse
