#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "rehearse/image/sample_maker.h"
#include "rehearse/pictures.h"

namespace steelyard::rehearse {
namespace {

using testing::Bytes8;

// The part of an image by the definition: for every output pixel the triangle around its centre,
// over both directions at once, in floating point.
Bytes8 resized_by_definition(const Bytes8& rgb, int width, const Box& box, int side,
                             bool mirrored) {
  const auto weights = [&](double from, int length, int i) {
    const double step = double(length) / side, reach = std::max(1.0, step);
    const double centre = from + (i + 0.5) * step;
    std::vector<std::pair<int, double>> list;
    double sum = 0;
    for (int p = int(from); p < int(from) + length; ++p) {
      const double w = 1 - std::abs(p + 0.5 - centre) / reach;
      if (w > 0) list.emplace_back(p, w), sum += w;
    }
    for (auto& [p, w] : list) w /= sum;
    return list;
  };
  Bytes8 out;
  for (int y = 0; y < side; ++y) {
    const auto down = weights(box.top, box.height, y);
    for (int x = 0; x < side; ++x) {
      const auto across = weights(box.left, box.width, mirrored ? side - 1 - x : x);
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        for (const auto& [py, wy] : down) {
          for (const auto& [px, wx] : across) {
            sum += wy * wx * rgb[std::size_t(py * width + px) * 3 + std::size_t(c)];
          }
        }
        out.push_back(std::uint8_t(std::lround(sum)));
      }
    }
  }
  return out;
}

int worst_difference(const Bytes8& a, const Bytes8& b) {
  int worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

double mean_difference(const Bytes8& a, const Bytes8& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum / double(a.size());
}

TEST(Resize, AgreesWithTheDefinitionOnPng) {
  const int width = 131, height = 97;
  const Bytes8 file = testing::png(width, height);
  const Bytes8 rgb = testing::pixels(width, height);
  SampleMaker maker({.side = 32});
  Bytes8 sample(SampleShape{.side = 32}.bytes());
  for (const Box& box : {Box{0, 0, 131, 97}, Box{10, 20, 32, 32}, Box{100, 60, 20, 30},
                         Box{5, 7, 90, 50}, Box{130, 96, 1, 1}}) {
    for (const bool mirrored : {false, true}) {
      ASSERT_TRUE(maker.make_from(file, box, mirrored, sample.data()));
      // One rounding per direction: at most one level each.
      EXPECT_LE(worst_difference(sample, resized_by_definition(rgb, width, box, 32, mirrored)), 2)
          << box.left << " " << box.top << " " << box.width << " " << box.height;
    }
  }
}

TEST(Resize, TheInterlacedPngIsTheSame) {
  const Bytes8 straight = testing::png(61, 47), laced = testing::png(61, 47, true);
  SampleMaker maker({.side = 24});
  Bytes8 a(SampleShape{.side = 24}.bytes()), b = a;
  ASSERT_TRUE(maker.make_from(straight, {3, 5, 40, 30}, false, a.data()));
  ASSERT_TRUE(maker.make_from(laced, {3, 5, 40, 30}, false, b.data()));
  EXPECT_EQ(a, b);
}

TEST(Resize, WeightsSumToOneAndStayInside) {
  Taps taps;
  for (const double length : {1.0, 3.5, 7.0, 31.0, 64.5, 100.0}) {
    make_taps(2.25, length, 120, 17, false, taps);
    for (int i = 0; i < taps.outputs; ++i) {
      const std::int16_t* w = taps.of(i);
      EXPECT_EQ(std::accumulate(w, w + taps.most, 0), Taps::kWhole);
      for (int k = 0; k < taps.most; ++k) {
        if (w[k] != 0) {
          EXPECT_LT(taps.first[std::size_t(i)] + k, 120);
        }
      }
      EXPECT_GE(taps.first[std::size_t(i)], 2);
    }
  }
}

TEST(Resize, FastAndPlainGiveTheSameBytes) {
  Random random(7);
  for (const int outputs : {1, 2, 5, 6, 7, 31, 224}) {
    Taps taps;
    make_taps(random.between(0, 20), random.between(1, 300), 400, outputs, outputs % 2 == 1, taps);
    Bytes8 row(static_cast<std::size_t>(400 + taps.most) * 4 + kOverrun);
    for (auto& byte : row) byte = static_cast<std::uint8_t>(random.next());
    const std::size_t bytes = static_cast<std::size_t>(outputs) * 3;
    Bytes8 fast(bytes), plain(bytes);
    blend_pixels(row.data(), taps, fast.data());
    blend_pixels_plain(row.data(), taps, plain.data());
    EXPECT_EQ(fast, plain) << outputs;

    const std::uint8_t* rows[4] = {row.data(), row.data() + 4, row.data() + 40, row.data() + 9};
    const std::int16_t weights[4] = {9000, 5000, 2384, 0};
    Bytes8 a(400 + kOverrun), b = a;
    blend_rows(rows, weights, 4, a.data(), 400);
    blend_rows_plain(rows, weights, 4, b.data(), 400);
    EXPECT_TRUE(std::equal(a.begin(), a.begin() + 400, b.begin()));
  }
}

TEST(Jpeg, APartIsThatPartOfTheWhole) {
  const int width = 203, height = 155;
  for (const int subsampling : {TJSAMP_420, TJSAMP_422, TJSAMP_444}) {
    for (const int flags : {0, TJFLAG_PROGRESSIVE}) {
      const Bytes8 file = testing::jpeg(width, height, flags, subsampling);
      Bytes8 whole(static_cast<std::size_t>(width * height) * 3);
      tjhandle handle = tjInitDecompress();
      ASSERT_EQ(tjDecompress2(handle, file.data(), file.size(), whole.data(), width, 0, height,
                              TJPF_RGB, 0),
                0);
      tjDestroy(handle);
      SampleMaker maker({.side = 40});
      Bytes8 sample(SampleShape{.side = 40}.bytes());
      for (const Box& box : {Box{0, 0, 203, 155}, Box{33, 47, 70, 60}, Box{120, 90, 83, 65},
                             Box{1, 1, 41, 47}, Box{160, 3, 30, 20}}) {
        ASSERT_TRUE(maker.make_from(file, box, true, sample.data()));
        const Bytes8 wanted = resized_by_definition(whole, width, box, 40, true);
        // Smoothed chroma at the edge of what is decoded differs a little.
        EXPECT_LE(mean_difference(sample, wanted), box.width >= 80 ? 3.0 : 1.0)
            << subsampling << " " << flags << " " << box.left << " " << box.width;
      }
    }
  }
}

TEST(Jpeg, WhatIsBrokenIsAFlawAndTheNextImageIsFine) {
  const Bytes8 good = testing::jpeg(80, 60);
  SampleMaker maker({.side = 16});
  Bytes8 sample(SampleShape{.side = 16}.bytes());
  const auto flaw = [&](const Bytes8& file) {
    const auto made = maker.make_from(file, {0, 0, 80, 60}, false, sample.data());
    return made ? std::string() : made.error();
  };
  EXPECT_EQ(flaw(good), "");
  Bytes8 cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(good.size() * 2 / 3));
  EXPECT_THAT(flaw(cut), ::testing::HasSubstr("JPEG: "));
  EXPECT_THAT(flaw({1, 2, 3, 4}), ::testing::HasSubstr("JPEG: Not a JPEG file"));
  EXPECT_NE(flaw({}), "");
  Bytes8 png = testing::png(80, 60);
  png.resize(png.size() / 2);
  EXPECT_THAT(flaw(png), ::testing::HasSubstr("PNG: "));
  EXPECT_EQ(flaw(good), "");
}

TEST(Jpeg, NoDamageCrashes) {
  Random random(11);
  SampleMaker maker({.side = 16});
  Bytes8 sample(SampleShape{.side = 16}.bytes());
  for (const Bytes8& good : {testing::jpeg(70, 50), testing::jpeg(70, 50, TJFLAG_PROGRESSIVE),
                             testing::png(70, 50), testing::png(70, 50, true)}) {
    for (int i = 0; i < 300; ++i) {
      Bytes8 bad = good;
      for (int n = 0; n < 1 + i % 8; ++n) {
        bad[static_cast<std::size_t>(random.next() % bad.size())] ^=
            static_cast<std::uint8_t>(1 + random.next() % 255);
      }
      (void)maker.make(bad, random.next(), sample.data());
    }
    ASSERT_TRUE(maker.make(good, 3, sample.data()));
  }
}

TEST(Crop, StaysInsideAndHasTheSharesAskedFor) {
  Random random(5);
  double area = 0;
  const int kTimes = 4000;
  for (int i = 0; i < kTimes; ++i) {
    const Box box = random_resized_crop(500, 375, random);
    ASSERT_GE(box.left, 0);
    ASSERT_GE(box.top, 0);
    ASSERT_GE(box.width, 1);
    ASSERT_LE(box.left + box.width, 500);
    ASSERT_LE(box.top + box.height, 375);
    area += double(box.width) * box.height / (500.0 * 375.0);
  }
  // Uniform from 0.08 to 1 has mean 0.54; large parts of unfit shape are tried again, so less:
  // torchvision's get_params gives 0.434 for this size (100,000 draws).
  EXPECT_NEAR(area / kTimes, 0.434, 0.02);
  const Box thin = random_resized_crop(1000, 10, random);
  EXPECT_EQ(thin.height, 10);
  const Box dot = random_resized_crop(1, 1, random);
  EXPECT_EQ(dot.width, 1);
}

TEST(Crop, ShrinkingKeepsEnoughPixels) {
  EXPECT_EQ(legal_shrink({0, 0, 447, 900}, 224), 1);
  EXPECT_EQ(legal_shrink({0, 0, 448, 900}, 224), 2);
  EXPECT_EQ(legal_shrink({0, 0, 900, 895}, 224), 2);
  EXPECT_EQ(legal_shrink({0, 0, 10'000, 10'000}, 224), 8);
}

TEST(Jpeg, AShrunkImageLooksTheSame) {
  const Bytes8 file = testing::jpeg(640, 480);
  SampleMaker shrinking({.side = 64}, true), whole({.side = 64}, false);
  Bytes8 a(SampleShape{.side = 64}.bytes()), b = a;
  ASSERT_TRUE(shrinking.make_from(file, {17, 31, 500, 400}, true, a.data()));
  ASSERT_TRUE(whole.make_from(file, {17, 31, 500, 400}, true, b.data()));
  EXPECT_LE(mean_difference(a, b), 3.0);
}

TEST(SampleMaker, NormalisesToPlanes) {
  const Bytes8 file = testing::png(50, 50);
  SampleMaker bytes({.side = 20}), floats({.side = 20, .pixels = Pixels::f32});
  Bytes8 a(SampleShape{.side = 20}.bytes());
  std::vector<float> b(20 * 20 * 3);
  ASSERT_TRUE(bytes.make_from(file, {0, 0, 50, 50}, false, a.data()));
  ASSERT_TRUE(
      floats.make_from(file, {0, 0, 50, 50}, false, reinterpret_cast<std::uint8_t*>(b.data())));
  // Green of the pixel in row 3, column 7.
  const float green = static_cast<float>(a[(3 * 20 + 7) * 3 + 1]) / 255.0F;
  EXPECT_NEAR(b[400 + 3 * 20 + 7], (green - 0.456F) / 0.224F, 1e-5);
}

}  // namespace
}  // namespace steelyard::rehearse
