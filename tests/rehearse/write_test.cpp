// The writers against NumPy's own bytes, and read back by the readers.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <turbojpeg.h>
#include <zlib.h>

#include <csignal>

#include "rehearse/formats/crc32c.h"
#include "rehearse/formats/source_file.h"
#include "rehearse/scratch.h"
#include "rehearse/write/writers.h"

namespace steelyard::rehearse {
namespace {

using steelyard::testing::file_text;
using testing::bytes_of;
using testing::fixture;
using ::testing::HasSubstr;
using testing::opened;
using testing::Scratch;

namespace fs = std::filesystem;

template <class Write>
fs::path written(const Scratch& scratch, const std::string& name, Write write) {
  Result<AtomicFile> file = AtomicFile::create(scratch.path() / name);
  EXPECT_TRUE(file && write(*file) && file->finish());
  return scratch.path() / name;
}

// The files of make_formats.py begin with NumPy's headers.
TEST(Write, NpyHeadersAreNumPysOwn) {
  const std::tuple<const char*, const char*, std::vector<std::uint64_t>> kCases[] = {
      {"tokens16.npy", "<u2", {100}},
      {"rows.npy", "<u4", {5, 6}},
      {"pictures.npy", "|u1", {3, 4, 2, 3}},
      {"line.npy", "<f8", {12}}};
  for (const auto& [name, descr, shape] : kCases) {
    const std::string header = npy_header(descr, shape);
    EXPECT_EQ(file_text(fixture(name)).substr(0, header.size()), header) << name;
  }
}

// A zip archive that numpy.load takes: checked by hand once; here its sums.
TEST(Write, AnNpzHasTheSumsAndSizesItStates) {
  const Scratch scratch;
  const fs::path path = written(scratch, "a.npz", [](AtomicFile& file) {
    RecordSource source(nullptr, Noise(1));
    return write_npz(file, source, 700'000);
  });
  const Dataset data = opened(path);
  ASSERT_EQ(data.records.size(), 1U);
  EXPECT_EQ(data.records[0].bytes, 128U + 700'000U);
  const std::string content = bytes_of(data, 0), whole = file_text(path);
  const auto* bytes = reinterpret_cast<const Bytef*>(content.data());
  const auto crc = static_cast<std::uint32_t>(::crc32_z(0, bytes, content.size()));
  EXPECT_EQ(le32(reinterpret_cast<const unsigned char*>(whole.data()) + 14), crc);
  const std::size_t entry = whole.find("PK\1\2");
  EXPECT_EQ(le32(reinterpret_cast<const unsigned char*>(whole.data()) + entry + 16), crc);
}

TEST(Write, ATfRecordHasBothSums) {
  const Scratch scratch;
  const fs::path path = written(scratch, "a.tfrecord", [](AtomicFile& file) -> Result<void> {
    RecordSource source(nullptr, Noise(2));
    STEELYARD_CHECK(write_tfrecord(file, source, 300'000, "image"));
    return write_tfrecord(file, source, 10, "image");
  });
  const Dataset data = opened(path);
  ASSERT_EQ(data.records.size(), 2U);
  EXPECT_GT(data.records[0].bytes, 300'000U);
  const std::string whole = file_text(path);
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string content = bytes_of(data, i);
    const auto* at = reinterpret_cast<const unsigned char*>(content.data());
    const std::size_t foot = data.records[i].offset + data.records[i].bytes;
    EXPECT_EQ(le32(reinterpret_cast<const unsigned char*>(whole.data()) + foot),
              masked(crc32c({at, content.size()})));
  }
}

TEST(Write, ParquetRowGroupsAreFound) {
  const Scratch scratch;
  const fs::path small = written(scratch, "a.parquet", [](AtomicFile& file) {
    RecordSource source(nullptr, Noise(3));
    return write_parquet(file, source, 761, 3000);  // 1377 rows in a group of 1 MiB
  });
  EXPECT_EQ(opened(small).records.size(), 3U);
  const fs::path large = written(scratch, "b.parquet", [](AtomicFile& file) {
    RecordSource source(nullptr, Noise(3));
    return write_parquet(file, source, 1'500'000, 2);
  });
  EXPECT_EQ(opened(large).records.size(), 2U);
}

TEST(Write, TarMembersWithShortAndLongNames) {
  const Scratch scratch;
  const fs::path path = written(scratch, "a.tar", [](AtomicFile& file) -> Result<void> {
    STEELYARD_CHECK(write_tar_member(file, {"0.jpg", "\xff\xd8\xff" + std::string(509, 'a')}));
    STEELYARD_CHECK(write_tar_member(file, {std::string(90, 'd') + "/1.jpg", "\xff\xd8"}));
    STEELYARD_CHECK(write_tar_member(file, {std::string(200, 'd') + "/2.jpg", "\xff"}));
    return write_tar_end(file);
  });
  const Dataset data = opened(path);
  ASSERT_EQ(data.records.size(), 3U);
  EXPECT_EQ(bytes_of(data, 2), "\xff");
  EXPECT_EQ(fs::file_size(path) % 512, 0U);
}

TEST(Write, PicturesHaveTheSizeAskedForAndDecode) {
  const Result<Pictures> pictures = Pictures::create(7);
  ASSERT_TRUE(pictures);
  Noise noise(1);
  std::vector<unsigned char> jpeg, other;
  const tjhandle decoder = tjInitDecompress();
  for (const std::uint64_t size : {3'000U, 20'000U, 114'660U, 322'957U, 2'000'000U}) {
    ASSERT_TRUE(pictures->make(size, noise, jpeg));
    EXPECT_EQ(jpeg.size(), size);
    int width = 0, height = 0, sampling = 0, colours = 0;
    ASSERT_EQ(tjDecompressHeader3(decoder, jpeg.data(), jpeg.size(), &width, &height, &sampling,
                                  &colours),
              0);
    // ImageNet's have about 0.6 bytes per pixel.
    if (size == 114'660) {
      const double per_pixel = 114'660.0 / (width * height);
      EXPECT_GT(per_pixel, 0.3);
      EXPECT_LT(per_pixel, 0.9);
    }
    std::vector<unsigned char> pixels(static_cast<std::size_t>(width * height) * 3);
    EXPECT_EQ(tjDecompress2(decoder, jpeg.data(), jpeg.size(), pixels.data(), width, 0, height,
                            TJPF_RGB, TJFLAG_STOPONWARNING),
              0)
        << tjGetErrorStr2(decoder);
  }
  tjDestroy(decoder);
  ASSERT_TRUE(pictures->make(2'000'000, noise, other));
  EXPECT_NE(jpeg, other);
  ASSERT_TRUE(pictures->make(10, noise, jpeg));
  EXPECT_LT(jpeg.size(), 1200U);  // the smallest
}

TEST(AtomicFile, IsThereWholeOrNotAtAll) {
  const Scratch scratch;
  {
    Result<AtomicFile> file = AtomicFile::create(scratch.path() / "a");
    ASSERT_TRUE(file && file->write("text"));
    EXPECT_FALSE(fs::exists(scratch.path() / "a"));
  }
  EXPECT_TRUE(fs::is_empty(scratch.path()));
  EXPECT_EQ(AtomicFile::create(scratch.path() / "no" / "a").error().code, ErrorCode::unreadable);
}

// A limit of the size of files stands in for a full disk: the write fails in the middle.
TEST(AtomicFile, AWriteThatFailsLeavesNothing) {
  const Scratch scratch;
  ASSERT_NE(std::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{1 << 20, before.rlim_max};
  {
    Result<AtomicFile> file = AtomicFile::create(scratch.path() / "a");
    ASSERT_TRUE(file);
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    const Result<void> done = file->write(std::string(3 << 20, 'x'));
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    ASSERT_FALSE(done);
    EXPECT_THAT(done.error().found, HasSubstr("File too large"));
  }
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

TEST(AtomicFile, AFullDiskIsNamed) {
  ASSERT_TRUE(fs::exists("/dev/full"));  // every Linux has it
  const int full = ::open("/dev/full", O_WRONLY);
  const Result<void> done =
      write_all(full, 0, ByteSpan(reinterpret_cast<const unsigned char*>("x"), 1), "/dev/full");
  ::close(full);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().found, "no space left on the disk");
}

}  // namespace
}  // namespace steelyard::rehearse
