// The fast reader of Huffman codes against libjpeg's own: the same pixels, and of broken files the
// same flaw or the same pixels.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
// after <cstdio>, which it needs
#include <jpeglib.h>

#include "rehearse/image/decoder.h"
#include "rehearse/image/huffman_scan.h"
#include "rehearse/image/random.h"
#include "rehearse/pictures.h"

namespace steelyard::rehearse {
namespace {

using testing::Bytes8;

struct Kind {
  int width = 0, height = 0;
  int components = 3;  // 1: grey, 3, 4: inks
  int quality = 90;
  int across = 1, down = 1;  // of the first component: samples for one of the others
  unsigned restart = 0;      // MCUs
  bool own_tables = false, progressive = false;
};

int below(Random& random, int limit) {
  return static_cast<int>(random.next() % static_cast<std::uint64_t>(limit));
}

Kind any_kind(Random& random) {
  constexpr int kQualities[] = {1, 10, 50, 75, 92, 98, 100};
  constexpr int kComponents[] = {1, 3, 3, 3, 3, 4};
  return {.width = 1 + below(random, 90),
          .height = 1 + below(random, 90),
          .components = kComponents[below(random, 6)],
          .quality = kQualities[below(random, 7)],
          .across = 1 << below(random, 2),
          .down = 1 << below(random, 2),
          .restart = below(random, 3) == 0 ? unsigned(1 + below(random, 9)) : 0,
          .own_tables = below(random, 3) == 0};
}

// From smooth to noise, so that codes of every length come.
Bytes8 encode(const Kind& kind, Random& random) {
  Bytes8 row(static_cast<std::size_t>(kind.width * kind.components));
  const int noise = 1 << below(random, 9);
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* out = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &out, &size);
  info.image_width = static_cast<JDIMENSION>(kind.width);
  info.image_height = static_cast<JDIMENSION>(kind.height);
  info.input_components = kind.components;
  info.in_color_space = kind.components == 1   ? JCS_GRAYSCALE
                        : kind.components == 3 ? JCS_RGB
                                               : JCS_CMYK;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, kind.quality, TRUE);
  info.comp_info[0].h_samp_factor = kind.across;
  info.comp_info[0].v_samp_factor = kind.down;
  info.restart_interval = kind.restart;
  info.optimize_coding = kind.own_tables ? TRUE : FALSE;
  if (kind.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  for (int y = 0; y < kind.height; ++y) {
    for (std::size_t x = 0; x < row.size(); ++x) {
      row[x] =
          static_cast<std::uint8_t>((static_cast<int>(x) * 2 + y + below(random, noise)) & 255);
    }
    JSAMPROW rows[1] = {row.data()};
    jpeg_write_scanlines(&info, rows, 1);
  }
  jpeg_finish_compress(&info);
  Bytes8 file(out, out + size);
  jpeg_destroy_compress(&info);
  free(out);
  return file;
}

// Everything that a decoder says of a file.
struct Told {
  std::string flaw;
  Bytes8 pixels;
};

Told decode(ImageDecoder& decoder, const Bytes8& file, std::uint64_t seed) {
  Told told;
  const auto size = decoder.open(file);
  if (!size) return {size.error(), {}};
  Random random(seed);
  Box box{.width = 1 + below(random, size->width), .height = 1 + below(random, size->height)};
  box.left = below(random, size->width - box.width + 1);
  box.top = below(random, size->height - box.height + 1);
  const auto region = decoder.start(box, 1 << (below(random, 8) / 2));
  if (!region) return {region.error(), {}};
  Bytes8 row(static_cast<std::size_t>(size->width + 64) * 4);
  for (int y = 0; y < region->height; ++y) {
    const auto read = decoder.row(row.data());
    if (!read) {
      told.flaw = read.error();
      return told;
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(region->width) * 4; ++i) {
      if (i % 4 != 3) told.pixels.push_back(row[i]);
    }
  }
  decoder.finish();
  return told;
}

TEST(HuffmanScan, GivesThePixelsOfLibjpeg) {
  Random random(21);
  const auto fast = make_jpeg_decoder(), plain = make_jpeg_decoder(CodeReader::libjpeg);
  for (int i = 0; i < 600; ++i) {
    const Bytes8 file = encode(any_kind(random), random);
    const std::uint64_t seed = random.next();
    const Told told = decode(*fast, file, seed);
    ASSERT_EQ(told.flaw, "") << i;
    ASSERT_TRUE(told.pixels == decode(*plain, file, seed).pixels) << i;
  }
}

TEST(HuffmanScan, SaysOfABrokenFileWhatLibjpegSays) {
  Random random(22);
  const auto fast = make_jpeg_decoder(), plain = make_jpeg_decoder(CodeReader::libjpeg);
  int flaws = 0, let_pass = 0;
  for (int i = 0; i < 1500; ++i) {
    Bytes8 file = encode(any_kind(random), random);
    const auto any_place = [&] { return 2 + std::ptrdiff_t(random.next() % (file.size() - 2)); };
    const int damage = below(random, 4);
    if (damage == 0 && below(random, 2) == 0) file.erase(file.begin() + any_place(), file.end());
    if (damage == 0) file.erase(file.end() - below(random, 3), file.end());
    if (damage == 1) file.erase(file.begin() + any_place());
    if (damage == 2) file.insert(file.begin() + any_place(), std::uint8_t(random.next() % 256));
    for (int n = 0; damage == 3 && n < 1 + i % 4; ++n) {
      file[std::size_t(any_place())] = below(random, 3) == 0 ? 0xFF : std::uint8_t(random.next());
    }
    const std::uint64_t seed = random.next();
    const Told told = decode(*fast, file, seed), wanted = decode(*plain, file, seed);
    ASSERT_EQ(told.flaw, wanted.flaw) << i;
    // How many rows come before a flaw is left open: libjpeg looks for more bytes than it needs.
    if (told.flaw.empty()) {
      ASSERT_TRUE(told.pixels == wanted.pixels) << i;
    }
    ++(told.flaw.empty() ? let_pass : flaws);
  }
  EXPECT_GT(flaws, 200);
  EXPECT_GT(let_pass, 200);
}

// The number of MCUs that are read before one is refused; -1: the scan is not read here.
int units_read(const Bytes8& file, int most) {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, file.data(), file.size());
  jpeg_read_header(&info, TRUE);
  jpeg_start_decompress(&info);
  const auto scan = std::make_unique<HuffmanScan>();
  int units = -1;
  if (scan->start(info)) {
    for (units = 0; units < most && scan->next(nullptr);) ++units;
  }
  jpeg_destroy_decompress(&info);
  return units;
}

TEST(HuffmanScan, ReadsWhatIsRegularItself) {
  Random random(23);
  for (const unsigned restart : {0U, 1U, 7U}) {
    for (const bool own_tables : {false, true}) {
      const Kind kind{.width = 70, .height = 50, .restart = restart, .own_tables = own_tables};
      Bytes8 file = encode(kind, random);
      constexpr int kUnits = 9 * 7;
      EXPECT_EQ(units_read(file, kUnits), kUnits);
      // The end of the image is no code, and half a file has half of the codes.
      EXPECT_EQ(units_read(file, kUnits + 1), kUnits);
      file.erase(file.end() - 2, file.end());  // nothing says that the data ends here
      EXPECT_EQ(units_read(file, kUnits), kUnits - 1);
      file.erase(file.end() - 300, file.end());
      const int read = units_read(file, kUnits);
      EXPECT_GT(read, 0);
      EXPECT_LT(read, kUnits);
    }
  }
  EXPECT_EQ(units_read(encode({.width = 70, .height = 50, .progressive = true}, random), 1), -1);
}

TEST(HuffmanScan, AMarkerOutOfTurnIsRefused) {
  Random random(24);
  Bytes8 file = encode({.width = 70, .height = 50, .restart = 9}, random);
  int seen = 0;
  for (std::size_t i = 0; i + 1 < file.size(); ++i) {
    if (file[i] == 0xFF && file[i + 1] == 0xD2 && ++seen == 1) file[i + 1] = 0xD5;
  }
  ASSERT_EQ(seen, 1);
  EXPECT_EQ(units_read(file, 9 * 7), 27);
}

}  // namespace
}  // namespace steelyard::rehearse
