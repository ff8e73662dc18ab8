// The readers against files that the formats' own libraries wrote (make_formats.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "rehearse/formats/crc32c.h"
#include "rehearse/formats/index.h"
#include "rehearse/scratch.h"

namespace steelyard::rehearse {
namespace {

using testing::bytes_of;
using ::testing::ElementsAre;
using testing::fixture;
using ::testing::HasSubstr;
using testing::opened;
using testing::Scratch;
using ::testing::SizeIs;

namespace fs = std::filesystem;

const std::string kJpeg = "\xff\xd8\xff\xe0";

std::vector<std::uint64_t> sizes_of(const Dataset& data) {
  std::vector<std::uint64_t> sizes;
  for (const Record& record : data.records) sizes.push_back(record.bytes);
  return sizes;
}

std::string fault_of(const Dataset& data) {
  return data.faults.empty() ? "" : data.faults[0].what;
}

// RFC 3720, appendix B.4.
TEST(Crc32c, TheVectorsOfTheRfc) {
  const std::vector<unsigned char> zeros(32, 0), ones(32, 0xff);
  std::vector<unsigned char> rising(32);
  for (std::size_t i = 0; i < 32; ++i) rising[i] = static_cast<unsigned char>(i);
  EXPECT_EQ(crc32c(zeros), 0x8a9136aaU);
  EXPECT_EQ(crc32c(ones), 0x62a8ab43U);
  EXPECT_EQ(crc32c(rising), 0x46dd794eU);
  const std::span<const unsigned char> whole = rising;
  EXPECT_EQ(crc32c(whole.subspan(13), crc32c(whole.first(13))), crc32c(whole));
}

TEST(Formats, ImagesInFoldersSortedAndWithTheirSizes) {
  const Scratch scratch;
  scratch.write("n02/b.JPEG", kJpeg + "bb");
  scratch.write("n01/a.jpg", kJpeg + "a");
  scratch.write("n01/c.png", "\x89PNG");
  scratch.write("n01/.hidden.jpg", "no");
  scratch.write("labels.txt", "some text that is longer than all the images together");
  fs::create_directory_symlink(scratch.path(), scratch.path() / "n01" / "loop");
  const Dataset data = opened(scratch.path());
  EXPECT_EQ(data.format, "images");
  EXPECT_EQ(data.encoding, Encoding::jpeg);
  EXPECT_THAT(sizes_of(data), ElementsAre(5, 4, 6));
  EXPECT_EQ(bytes_of(data, 2), kJpeg + "bb");
  EXPECT_EQ(data.total, Bytes(15));
  EXPECT_EQ(data.faults_total, 0U);
  ASSERT_THAT(data.remarks, SizeIs(1));
  EXPECT_THAT(data.remarks[0], HasSubstr("labels.txt"));
}

TEST(Formats, AnEmptyImageIsAFaultAndPngAloneIsPng) {
  const Scratch scratch;
  scratch.write("a.png", "");
  scratch.write("b.png", "\x89PNG");
  const Dataset data = opened(scratch.path());
  EXPECT_EQ(data.encoding, Encoding::png);
  EXPECT_THAT(sizes_of(data), ElementsAre(4));
  ASSERT_THAT(data.faults, SizeIs(1));
  EXPECT_THAT(data.faults[0].file, HasSubstr("a.png"));
  EXPECT_EQ(data.faults[0].what, "is empty");
}

TEST(Formats, WhatIsNoDataSetIsAnError) {
  const Scratch scratch;
  EXPECT_EQ(open_dataset(scratch.path() / "missing").error().code, ErrorCode::unreadable);
  EXPECT_EQ(open_dataset(scratch.path()).error().found, "no files");
  scratch.write("a.tar", std::string(600, 'x'));
  const Result<Dataset> data = open_dataset(scratch.path());
  ASSERT_FALSE(data);
  EXPECT_THAT(data.error().hint, HasSubstr("a.tar has no tar header (wrong checksum) at offset 0"));
  EXPECT_EQ(open_dataset(scratch.path(), {.format = "zip"}).error().code, ErrorCode::unknown_name);
  EXPECT_FALSE(open_dataset(scratch.path(), {.token_bytes = 3}));
}

TEST(Formats, AFifoAmongTheFilesDoesNotHang) {
  const Scratch scratch;
  scratch.write("a.jpg", kJpeg);
  const fs::path fifo = scratch.path() / "b.jpg";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(opened(scratch.path()).records, SizeIs(1));
  EXPECT_FALSE(open_dataset(fifo));
}

TEST(Formats, LimitsAreErrors) {
  const Scratch scratch;
  scratch.write("a.bin", std::string(64, 'x'));
  scratch.write("b.bin", std::string(64, 'x'));
  const OpenOptions few_files{.max_files = 1};
  EXPECT_EQ(open_dataset(scratch.path(), few_files).error().code, ErrorCode::too_large);
  const OpenOptions few_records{.sequence_tokens = 8, .max_records = 7};
  EXPECT_EQ(open_dataset(scratch.path(), few_records).error().code, ErrorCode::too_large);
  const OpenOptions enough{.sequence_tokens = 8, .max_records = 8};
  EXPECT_THAT(opened(scratch.path(), enough).records, SizeIs(8));
}

TEST(Formats, FaultsAreCountedButNotAllKept) {
  const Scratch scratch;
  scratch.write("good.jpg", kJpeg);
  for (int i = 0; i < 20; ++i) scratch.write("empty" + std::to_string(i) + ".jpg", "");
  const Dataset data = opened(scratch.path(), {.max_faults = 5});
  EXPECT_THAT(data.faults, SizeIs(5));
  EXPECT_EQ(data.faults_total, 20U);
  EXPECT_THAT(data.files, SizeIs(1));
}

// Sizes as make_formats.py gives them; 0004 has no image, __info__ is no sample.
TEST(Tar, SamplesByKeyInEachDialect) {
  for (const char* name : {"gnu.tar", "pax.tar", "ustar.tar"}) {
    const Dataset data = opened(fixture(name));
    EXPECT_EQ(data.format, "tar") << name;
    EXPECT_EQ(data.encoding, Encoding::jpeg) << name;
    EXPECT_EQ(data.faults_total, 0U) << name << fault_of(data);
    EXPECT_THAT(sizes_of(data), ElementsAre(704, 516, 704, 708)) << name;
    for (std::size_t i = 0; i < data.records.size(); ++i) {
      EXPECT_THAT(bytes_of(data, i), HasSubstr("image " + std::to_string(i) + " ")) << name;
    }
    ASSERT_THAT(data.remarks, SizeIs(1)) << name;
    EXPECT_EQ(data.remarks[0], "1 records without an image are left out");
  }
}

TEST(Tar, WithoutImagesTheLargestMemberIsTheRecord) {
  const Dataset data = opened(fixture("text.tar"));
  EXPECT_EQ(data.encoding, Encoding::raw);
  ASSERT_THAT(data.records, SizeIs(2));
  EXPECT_EQ(bytes_of(data, 0), "record 0");
  EXPECT_EQ(bytes_of(data, 1), "record 1");
}

TEST(Tar, ATruncatedShardIsAFaultWithItsNameAndOffset) {
  const Scratch scratch;
  const std::string whole = steelyard::testing::file_text(fixture("gnu.tar"));
  scratch.write("0.tar", whole);
  scratch.write("1.tar", whole.substr(0, 2600));  // within 0000.jpg of 704 bytes, whose header
                                                  // begins at 2048 (two members of two blocks)
  const Dataset data = opened(scratch.path());
  EXPECT_THAT(data.records, SizeIs(4));
  ASSERT_THAT(data.faults, SizeIs(1));
  EXPECT_THAT(data.faults[0].file, HasSubstr("1.tar"));
  EXPECT_EQ(data.faults[0].what,
            "is truncated: member 0000.jpg of 704 bytes goes past the end (2600) at offset 2048");
}

std::string tar_header(const std::string& size_field) {
  std::string block(512, '\0');
  block.replace(0, 5, "a.jpg");
  block.replace(124, size_field.size(), size_field);
  block[156] = '0';
  block.replace(257, 6, std::string("ustar\0", 6));
  block.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char byte : block) sum += static_cast<unsigned char>(byte);
  char text[8];
  std::snprintf(text, sizeof text, "%06o", sum);
  block.replace(148, 7, std::string(text, 7));
  return block;
}

TEST(Tar, HostileSizesAreRefused) {
  const Scratch scratch;
  const std::string good = tar_header("00000000004") + std::string("\xff\xd8\xff\xe0") +
                           std::string(508, '\0') + std::string(1024, '\0');
  EXPECT_THAT(opened(scratch.write("good.tar", good)).records, SizeIs(1));
  const std::string base256 = std::string("\x80\0\0\0", 4);
  const std::pair<std::string, std::string> cases[] = {
      {"77777777777", "goes past the end"},
      {base256 + std::string(8, '\xff'), "goes past the end"},
      {std::string("\x80\1\0\0", 4) + std::string(8, '\xff'), "impossible size"},
      {std::string(12, '\xff'), "impossible size"},
      {"0000000000x", "impossible size"},
  };
  for (const auto& [size, what] : cases) {
    const fs::path file = scratch.write("bad.tar", tar_header(size) + std::string(1024, '\0'));
    const Result<Dataset> data = open_dataset(file);
    ASSERT_FALSE(data);
    EXPECT_THAT(data.error().hint, HasSubstr(what));
  }
}

TEST(TfRecord, TheImageInsideTheExampleIsTheRecord) {
  const Dataset data = opened(fixture("images.tfrecord"));
  EXPECT_EQ(data.format, "tfrecord");
  EXPECT_EQ(data.encoding, Encoding::jpeg);
  EXPECT_THAT(sizes_of(data), ElementsAre(704, 704, 704, 704));
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(bytes_of(data, i).substr(0, 12), kJpeg + "image " + std::to_string(i) + " ");
  }
}

TEST(TfRecord, WithoutAnImageTheWholeExampleIs) {
  const Scratch scratch;
  const std::string content = steelyard::testing::file_text(fixture("plain.tfrecord"));
  const Dataset data = opened(scratch.write("train-00000-of-00001", content));
  EXPECT_EQ(data.format, "tfrecord");  // by its first bytes
  EXPECT_EQ(data.encoding, Encoding::raw);
  EXPECT_EQ(data.total, Bytes(static_cast<std::int64_t>(content.size()) - 3 * 16));
  EXPECT_THAT(bytes_of(data, 2), HasSubstr("plain 2"));
}

TEST(TfRecord, ABreakIsAFaultAndWhatCameBeforeIsKept) {
  const Scratch scratch;
  std::string content = steelyard::testing::file_text(fixture("plain.tfrecord"));
  Dataset data = opened(scratch.write("a.tfrecord", content.substr(0, content.size() - 1)));
  EXPECT_THAT(data.records, SizeIs(2));
  EXPECT_THAT(fault_of(data), HasSubstr("is truncated: a record of 35 bytes goes past the end"));
  content[51] = static_cast<char>(content[51] + 1);  // the length of the second, at 51
  data = opened(scratch.write("a.tfrecord", content));
  EXPECT_THAT(data.records, SizeIs(1));
  EXPECT_EQ(fault_of(data), "has no TFRecord (wrong checksum of the length) at offset 51");
}

TEST(Npy, TokensAreCutInSequences) {
  const Dataset narrow = opened(fixture("tokens16.npy"), {.sequence_tokens = 30});
  EXPECT_EQ(narrow.encoding, Encoding::tokens);
  EXPECT_EQ(narrow.token_bytes, 2U);
  EXPECT_THAT(sizes_of(narrow), ElementsAre(60, 60, 60));
  EXPECT_EQ(bytes_of(narrow, 1).substr(0, 4), std::string("\x1e\0\x1f\0", 4));  // 30, 31
  const Dataset wide = opened(fixture("tokens64.npy"), {.sequence_tokens = 10});
  EXPECT_EQ(wide.token_bytes, 8U);
  EXPECT_THAT(sizes_of(wide), ElementsAre(80, 80));
  EXPECT_EQ(opened(fixture("rows.npy")).token_bytes, 4U);
  EXPECT_THAT(sizes_of(opened(fixture("rows.npy"))), ElementsAre(24, 24, 24, 24, 24));
  EXPECT_THAT(sizes_of(opened(fixture("version2.npy"), {.sequence_tokens = 5})),
              ElementsAre(10, 10));
}

TEST(Npy, RowsOfOtherArraysAreRecords) {
  const Dataset pictures = opened(fixture("pictures.npy"));
  EXPECT_EQ(pictures.encoding, Encoding::raw);
  EXPECT_THAT(sizes_of(pictures), ElementsAre(24, 24, 24));
  EXPECT_EQ(bytes_of(pictures, 2), std::string(24, '\2'));
  EXPECT_THAT(sizes_of(opened(fixture("line.npy"))), ElementsAre(96));
  EXPECT_THAT(sizes_of(opened(fixture("line.npy"), {.record_bytes = 40})), ElementsAre(40, 40));
}

TEST(Npy, WhatCannotBeReadInPlaceIsRefused) {
  const auto hint = [](const char* name) {
    const Result<Dataset> data = open_dataset(fixture(name));
    return data ? std::string("was taken") : data.error().hint;
  };
  EXPECT_THAT(hint("fortran.npy"), HasSubstr("Fortran order"));
  EXPECT_THAT(hint("objects.npy"), HasSubstr("type of elements"));
  EXPECT_THAT(hint("structured.npy"), HasSubstr("type of elements"));
  EXPECT_EQ(opened(fixture("big_endian.npy")).encoding, Encoding::raw);
}

TEST(Tokens, WithAndWithoutAHeader) {
  const Scratch scratch;
  const Dataset plain = opened(scratch.write("train.bin", std::string(100, 'x')),
                               {.sequence_tokens = 10, .token_bytes = 4});
  EXPECT_THAT(sizes_of(plain), ElementsAre(40, 40));
  const Dataset gpt2 = opened(fixture("llm_c_gpt2.bin"), {.sequence_tokens = 25});
  EXPECT_EQ(gpt2.token_bytes, 2U);
  EXPECT_THAT(sizes_of(gpt2), ElementsAre(50, 50));
  EXPECT_EQ(gpt2.records[0].offset, 1024U);
  EXPECT_EQ(opened(fixture("llm_c_llama3.bin"), {.sequence_tokens = 25}).token_bytes, 4U);
}

TEST(Tokens, FilesOfOneWidthOnly) {
  const Scratch scratch;
  fs::copy(fixture("llm_c_gpt2.bin"), scratch.path() / "a.bin");
  fs::copy(fixture("llm_c_llama3.bin"), scratch.path() / "b.bin");
  scratch.write("c.bin", "x");
  const Dataset data = opened(scratch.path(), {.sequence_tokens = 25});
  EXPECT_THAT(data.records, SizeIs(2));
  ASSERT_THAT(data.faults, SizeIs(2));
  EXPECT_EQ(data.faults[0].what, "holds tokens of 4 bytes, the files before it of 2");
  EXPECT_EQ(data.faults[1].what, "has 1 bytes of data, less than one sequence of 50 at offset 0");
}

TEST(Npz, MembersByTheDirectory) {
  const Dataset dlio = opened(fixture("dlio.npz"));
  EXPECT_EQ(dlio.encoding, Encoding::raw);
  EXPECT_THAT(sizes_of(dlio), ElementsAre(128 + 400));  // x only, its .npy header included
  EXPECT_EQ(bytes_of(dlio, 0).substr(0, 6), "\x93NUMPY");
  EXPECT_TRUE(dlio.deflated.empty());
  const Dataset two = opened(fixture("two.npz"));
  EXPECT_THAT(sizes_of(two), ElementsAre(128 + 50, 128 + 70));
  EXPECT_EQ(bytes_of(two, 1).substr(128), std::string(70, '\2'));
  const Dataset deflated = opened(fixture("deflated.npz"));
  EXPECT_THAT(deflated.deflated, ElementsAre(true, true));
  EXPECT_LT(deflated.records[0].bytes, 1000U);
}

TEST(Parquet, RowGroupsByTheMetadata) {
  // pyarrow's metadata: the columns of the groups lie at 4 to 926, 926 to 1848, 1848 to 2770.
  const Dataset data = opened(fixture("groups.parquet"));
  EXPECT_THAT(sizes_of(data), ElementsAre(922, 922, 922));
  EXPECT_EQ(data.records[1].offset, 926U);
  EXPECT_THAT(bytes_of(data, 2), HasSubstr("row 29row 29"));
  ASSERT_THAT(data.remarks, SizeIs(1));
  EXPECT_THAT(data.remarks[0], HasSubstr("not decoded"));
  const Dataset cut = opened(fixture("groups.parquet"), {.record_bytes = 500});
  EXPECT_EQ(cut.records[0].offset, 4U);
  EXPECT_THAT(cut.records, SizeIs(5));
}

TEST(Raw, WholeFilesOrPieces) {
  const Scratch scratch;
  scratch.write("a.dat", std::string(100, 'x'));
  scratch.write("b.dat", std::string(30, 'x'));
  EXPECT_THAT(sizes_of(opened(scratch.path())), ElementsAre(100, 30));
  EXPECT_THAT(sizes_of(opened(scratch.path(), {.record_bytes = 40})), ElementsAre(40, 40));
}

}  // namespace
}  // namespace steelyard::rehearse
