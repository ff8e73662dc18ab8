#include "probe/image_rates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "codec/temporary_folder.h"
#include "probe/conditions.h"
#include "probe/decode_model.h"
#include "probe/image_set.h"
#include "probe/sample_parts.h"
#include "rehearse/image/crop.h"

namespace steelyard::probe {
namespace {

std::string text_of(const Encoded& file) {
  return {file.begin(), file.end()};
}

double mean_difference(const Raster& a, const Raster& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i)
    sum += std::abs(static_cast<double>(a.pixels[i]) - static_cast<double>(b.pixels[i]));
  return sum / static_cast<double>(a.pixels.size());
}

TEST(ImageCodecs, WhatIsEncodedComesBack) {
  const Raster image = synthetic_image(120, 90, Detail::soft, 7);
  Raster back;
  const auto png = encode_png(image);
  ASSERT_TRUE(png);
  ASSERT_TRUE(decode_png(*png, back));
  EXPECT_EQ(back.pixels, image.pixels);
  const auto jpeg = encode_jpeg(image, 95);
  ASSERT_TRUE(jpeg);
  JpegDecoder decoder;
  ASSERT_TRUE(decoder.decode(*jpeg, 1, back));
  EXPECT_EQ(back.width, 120);
  EXPECT_EQ(back.height, 90);
  EXPECT_LT(mean_difference(image, back), 8);
  ASSERT_TRUE(decoder.decode(*jpeg, 8, back));
  EXPECT_EQ(back.width, 15);
  EXPECT_EQ(back.height, 12);  // 90 / 8 = 11.25: a begun block counts
}

TEST(ImageCodecs, BrokenFilesAreErrors) {
  Raster back;
  JpegDecoder decoder;
  const Encoded nonsense(100, 42);
  EXPECT_FALSE(decoder.decode(nonsense, 1, back));
  EXPECT_FALSE(decode_png(nonsense, back));
  EXPECT_FALSE(decoder.decode({}, 1, back));
  EXPECT_FALSE(decode_png({}, back));
  auto png = encode_png(synthetic_image(64, 64, Detail::rich, 1));
  png->resize(png->size() / 2);
  EXPECT_FALSE(decode_png(*png, back));
}

TEST(SyntheticImage, IsTheSameForTheSameSeedAndWeighsLikeAPhotograph) {
  EXPECT_EQ(synthetic_image(64, 48, Detail::rich, 3).pixels,
            synthetic_image(64, 48, Detail::rich, 3).pixels);
  EXPECT_NE(synthetic_image(64, 48, Detail::rich, 3).pixels,
            synthetic_image(64, 48, Detail::rich, 4).pixels);
  const auto rich = synthetic_jpegs(500, 375, Detail::rich);
  const auto usual = synthetic_jpegs(500, 375, Detail::usual);
  const auto soft = synthetic_jpegs(500, 375, Detail::soft);
  ASSERT_TRUE(rich && usual && soft);
  EXPECT_NEAR(rich->bytes / (500 * 375), 0.48, 0.05);
  EXPECT_NEAR(usual->bytes / (500 * 375), 0.26, 0.05);
  EXPECT_NEAR(soft->bytes / (500 * 375), 0.1, 0.03);
}

// A photograph's rows are foretold best from the left and from above (Paeth), and that filter is
// what most of decoding a PNG takes.
TEST(SyntheticImage, IsFilteredAsAPhotographIs) {
  const Raster image = synthetic_image(64, 48, Detail::rich, 1);
  const auto at = [&](int x, int y) {
    return static_cast<int>(image.pixels[static_cast<std::size_t>((y * 64 + x) * 3)]);
  };
  double left = 0, above = 0, both = 0;
  for (int y = 1; y < 48; ++y) {
    for (int x = 1; x < 64; ++x) {
      left += std::abs(at(x, y) - at(x - 1, y));
      above += std::abs(at(x, y) - at(x, y - 1));
      both += std::abs(at(x, y) - at(x - 1, y) - at(x, y - 1) + at(x - 1, y - 1));
    }
  }
  EXPECT_LT(both, 0.75 * left);
  EXPECT_LT(both, 0.75 * above);
}

TEST(SampleParts, FewStandForAll) {
  const auto seeds = representative_seeds(500, 375);
  ASSERT_GE(seeds.size(), 64U);
  EXPECT_EQ(seeds, representative_seeds(500, 375));
  const auto mean_area = [&](std::size_t count) {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      rehearse::Random random(seeds[i]);
      const rehearse::Box box = rehearse::random_resized_crop(500, 375, random);
      sum += static_cast<double>(box.width) * box.height / (500 * 375);
    }
    return sum / static_cast<double>(count);
  };
  double all = 0;
  constexpr std::uint64_t kMany = 20'000;
  for (std::uint64_t seed = 0; seed < kMany; ++seed) {
    rehearse::Random random(rehearse::Random::mixed(seed + 1'000'000));
    const rehearse::Box box = rehearse::random_resized_crop(500, 375, random);
    all += static_cast<double>(box.width) * box.height / (500 * 375) / kMany;
  }
  EXPECT_NEAR(mean_area(seeds.size()), all, 0.03);
  EXPECT_NEAR(mean_area(8), all, 0.12);
}

TEST(Resizer, APlainAreaKeepsItsColor) {
  Raster plain;
  plain.shape(333, 217);
  for (std::size_t i = 0; i < plain.pixels.size(); i += 3) {
    plain.pixels[i] = 10;
    plain.pixels[i + 1] = 128;
    plain.pixels[i + 2] = 255;
  }
  Raster small;
  Resizer(224, 224).resize(plain, small);
  ASSERT_EQ(small.pixels.size(), 224U * 224 * 3);
  for (std::size_t i = 0; i < small.pixels.size(); i += 3) {
    ASSERT_EQ(small.pixels[i], 10);
    ASSERT_EQ(small.pixels[i + 1], 128);
    ASSERT_EQ(small.pixels[i + 2], 255);
  }
}

TEST(Resizer, ARampStaysARamp) {
  Raster ramp;
  ramp.shape(256, 4);
  for (std::size_t i = 0; i < ramp.pixels.size(); ++i)
    ramp.pixels[i] = static_cast<std::uint8_t>(i / 3 % 256);
  Raster half;
  Resizer(128, 2).resize(ramp, half);
  // The middle of result x lies between the pixels 2x and 2x + 1.
  for (std::size_t x = 2; x < 126; ++x) {
    EXPECT_NEAR(half.pixels[3 * x], 2.0 * static_cast<double>(x) + 0.5, 1.0) << x;
  }
}

TEST(Resizer, TakesImagesOfAllSizesInTurn) {
  Resizer resizer(224, 224);
  Raster result;
  for (const auto& [width, height] :
       {std::pair{1, 1}, {224, 224}, {3, 2000}, {2000, 3}, {10, 10}}) {
    resizer.resize(synthetic_image(width, height, Detail::rich, 1), result);
    EXPECT_EQ(result.pixels.size(), 224U * 224 * 3);
  }
}

std::vector<DecodePoint> points_of(double per_pixel, double per_byte) {
  std::vector<DecodePoint> points;
  for (const auto& [pixels, bytes] :
       {std::pair{65536.0, 20000.0}, {187500.0, 95000.0}, {187500.0, 30000.0}, {2073600.0, 5e5}})
    points.push_back({pixels, bytes, Seconds(per_pixel * pixels + per_byte * bytes)});
  return points;
}

TEST(DecodeModel, FindsTheConstantsOfItsOwnData) {
  const auto model = fit_decode_model(points_of(1.5e-9, 6.7e-9));
  ASSERT_TRUE(model);
  EXPECT_NEAR(model->per_pixel.value(), 1.5e-9, 1e-14);
  EXPECT_NEAR(model->per_byte.value(), 6.7e-9, 1e-14);
  EXPECT_NEAR(model->worst_error.value(), 0, 1e-9);
  EXPECT_EQ(model->points, 4);
}

TEST(DecodeModel, TellsHowFarItIsFromAPointThatDoesNotFit) {
  auto points = points_of(1.5e-9, 6.7e-9);
  points[0].time = points[0].time * 1.3;
  const auto model = fit_decode_model(points);
  ASSERT_TRUE(model);
  EXPECT_GT(model->worst_error.value(), 0.05);
  EXPECT_LT(model->worst_error.value(), 0.3);
}

TEST(DecodeModel, NoCostIsBelowZero) {
  // Time falls with the bytes: only pixels can cost.
  const std::vector<DecodePoint> points = {{1e6, 1e5, Seconds(3e-3)}, {1e6, 4e5, Seconds(2e-3)}};
  const auto model = fit_decode_model(points);
  ASSERT_TRUE(model);
  EXPECT_EQ(model->per_byte.value(), 0);
  EXPECT_GT(model->per_pixel.value(), 2e-9);
  EXPECT_LT(model->per_pixel.value(), 3e-9);
}

TEST(DecodeModel, PointsOfOneKindSayNothing) {
  EXPECT_EQ(fit_decode_model({}), std::nullopt);
  EXPECT_EQ(fit_decode_model({{1e6, 1e5, Seconds(1e-3)}}), std::nullopt);
  EXPECT_EQ(fit_decode_model({{1e6, 1e5, Seconds(1e-3)}, {2e6, 2e5, Seconds(2e-3)}}), std::nullopt);
  EXPECT_EQ(fit_decode_model({{1e6, 1e5, Seconds(0)}, {2e6, 1e5, Seconds(1)}}), std::nullopt);
}

TEST(ImageRates, OfSyntheticImagesAreThereAndConsistent) {
  const auto seen = measure_images(
      {.threads = schedulable_threads(), .sizes = {{64, 64}, {96, 64}}, .budget = Seconds(0.3)});
  ASSERT_TRUE(seen) << to_text(seen.error());
  EXPECT_EQ(seen->source, "synthetic");
  EXPECT_THAT(seen->decoder, testing::HasSubstr("libspng"));
  bool scaled = false;
  bool resized = false;
  bool png = false;
  for (const facts::ImageRate& rate : seen->rates) {
    const double images = rate.images.median.value();
    EXPECT_GT(images, 0);
    EXPECT_NEAR(rate.pixel_rate.value(), images * static_cast<double>(rate.width * rate.height),
                1e-6 * rate.pixel_rate.value());
    scaled |= rate.work == facts::ImageWork::jpeg_eighth;
    resized |= rate.work == facts::ImageWork::resize;
    png |= rate.work == facts::ImageWork::png;
    EXPECT_EQ(rate.compressed.value() == 0, rate.work == facts::ImageWork::resize);
  }
  EXPECT_TRUE(scaled && resized && png);
}

TEST(ImageRates, OfAFolderLeaveOutWhatIsBroken) {
  const TemporaryFolder folder;
  for (std::uint32_t i = 0; i < 3; ++i) {
    folder.write(std::to_string(i) + ".JPG",
                 text_of(*encode_jpeg(synthetic_image(40, 30, Detail::rich, i), 90)));
  }
  folder.write("a.png", text_of(*encode_png(synthetic_image(32, 32, Detail::rich, 1))));
  folder.write("broken.jpeg", "this is text");
  folder.write("empty.png", "");
  folder.write("notes.txt", "no image at all");
  const auto seen = measure_images(
      {.threads = {schedulable_threads().front()}, .path = folder.path(), .budget = Seconds(0.1)});
  ASSERT_TRUE(seen) << to_text(seen.error());
  EXPECT_THAT(seen->source, testing::HasSubstr("(2 files left out)"));
  EXPECT_EQ(seen->rates.front().work, facts::ImageWork::jpeg);
  EXPECT_EQ(seen->rates.front().width, 40);
  EXPECT_EQ(seen->rates.back().work, facts::ImageWork::png_sample);
}

TEST(ImageRates, AFolderWithoutImagesIsAnError) {
  const TemporaryFolder folder;
  folder.write("broken.jpg", "this is text");
  const auto seen = measure_images({.threads = {0}, .path = folder.path()});
  ASSERT_FALSE(seen);
  EXPECT_EQ(seen.error().code, ErrorCode::unreadable);
  EXPECT_FALSE(measure_images({.threads = {0}, .path = folder.path() / "none"}));
}

TEST(ImageSet, ManyFilesAreSplitBySizeAndDensity) {
  const TemporaryFolder folder;
  for (std::uint32_t i = 0; i < 16; ++i) {
    const int width = i % 2 == 0 ? 40 : 80;
    const Detail detail = i % 4 < 2 ? Detail::soft : Detail::rich;
    folder.write(std::to_string(i) + ".jpg",
                 text_of(*encode_jpeg(synthetic_image(width, 40, detail, i), 90)));
  }
  const auto found = images_of(folder.path());
  ASSERT_TRUE(found);
  ASSERT_EQ(found->groups.size(), 4U);
  EXPECT_EQ(found->groups[0].width, 40);
  EXPECT_EQ(found->groups[3].width, 80);
  EXPECT_LT(found->groups[0].bytes, found->groups[1].bytes);
}

}  // namespace
}  // namespace steelyard::probe
