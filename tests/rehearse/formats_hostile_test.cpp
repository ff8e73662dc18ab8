// Files cut short at every length and with bytes changed at random: no crash, no record outside of
// the file, no error without words.
#include <gtest/gtest.h>

#include <random>

#include "rehearse/scratch.h"

namespace steelyard::rehearse {
namespace {

using testing::fixture;
using testing::Scratch;

namespace fs = std::filesystem;

const char* const kFiles[] = {"gnu.tar",        "pax.tar",      "text.tar", "images.tfrecord",
                              "plain.tfrecord", "tokens16.npy", "rows.npy", "version2.npy",
                              "pictures.npy",   "dlio.npz",     "two.npz",  "deflated.npz",
                              "groups.parquet"};

// The number of records; 0 with an error.
std::size_t records_in(const fs::path& file) {
  const Result<Dataset> data = open_dataset(file, {.sequence_tokens = 8});
  if (!data) {
    EXPECT_FALSE(data.error().found.empty());
    return 0;
  }
  const std::uint64_t size = fs::file_size(file);
  for (const Record& record : data->records) {
    EXPECT_LE(record.offset, size);
    EXPECT_LE(record.bytes, size - record.offset);
    EXPECT_LT(record.file, data->files.size());
  }
  EXPECT_TRUE(data->deflated.empty() || data->deflated.size() == data->records.size());
  return data->records.size();
}

// Over the bytes that are there: a new file for each try would make the disk work.
void overwrite(const fs::path& file, const std::string& content) {
  std::fstream(file, std::ios::binary | std::ios::in | std::ios::out) << content;
}

// Ever shorter: never more records than before. But a tar archive that happens to end between two
// members ends well: there the sample counts that a cut header took away.
TEST(HostileFormats, CutShort) {
  const Scratch scratch;
  for (const char* name : kFiles) {
    const fs::path file = scratch.path() / name;
    fs::copy(fixture(name), file);
    std::uint64_t size = fs::file_size(file);
    const std::size_t whole = records_in(file);
    std::size_t before = whole;
    EXPECT_GT(whole, 0U) << name;
    // Each byte of the small ones.
    const std::uint64_t step = size < 5000 ? 1 : 13;
    for (size -= std::min(size, step); size > 0; size -= std::min(size, step)) {
      fs::resize_file(file, size);
      const std::size_t now = records_in(file);
      const bool tar = fs::path(name).extension() == ".tar";
      ASSERT_LE(now, tar ? whole : before) << name << " of " << size << " bytes";
      before = now;
    }
    fs::resize_file(file, 0);
    EXPECT_EQ(records_in(file), 0U) << name;
  }
}

TEST(HostileFormats, BytesChanged) {
  const Scratch scratch;
  std::mt19937 random(20261129);
  for (const char* name : kFiles) {
    const std::string whole = steelyard::testing::file_text(fixture(name));
    const fs::path file = scratch.write(name, whole);
    for (int round = 0; round < 400; ++round) {
      std::string broken = whole;
      const unsigned changes = 1 + random() % 4;
      for (unsigned i = 0; i < changes; ++i) {
        broken[random() % broken.size()] = static_cast<char>(random());
      }
      overwrite(file, broken);
      (void)records_in(file);
    }
  }
}

// Where the headers are, changes hit more often: the last 600 bytes of archives with a directory.
TEST(HostileFormats, BytesOfTheDirectoryChanged) {
  const Scratch scratch;
  std::mt19937 random(8);
  for (const char* name : {"two.npz", "deflated.npz", "groups.parquet"}) {
    const std::string whole = steelyard::testing::file_text(fixture(name));
    const std::size_t tail = std::min<std::size_t>(whole.size(), 600);
    const fs::path file = scratch.write(name, whole);
    for (int round = 0; round < 1500; ++round) {
      std::string broken = whole;
      for (int i = 0; i < 2; ++i) {
        // Often all ones or zero: the edges of the sizes.
        const unsigned value = random() % 4;
        broken[whole.size() - tail + random() % tail] = static_cast<char>(value == 0   ? 0xff
                                                                          : value == 1 ? 0
                                                                                       : random());
      }
      overwrite(file, broken);
      (void)records_in(file);
    }
  }
}

}  // namespace
}  // namespace steelyard::rehearse
