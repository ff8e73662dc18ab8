#include "probe/measure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/temporary_folder.h"
#include "probe/image_set.h"

namespace steelyard::probe {
namespace {

TEST(Measure, TakesTheChosenPartsOnlyAndTellsEach) {
  const TemporaryFolder folder;
  const auto file = encode_jpeg(synthetic_image(40, 30, Detail::rich, 1), 90);
  ASSERT_TRUE(file);
  folder.write("a.jpg", std::string(file->begin(), file->end()));
  std::vector<std::string> parts;
  const auto seen = measure({.memory = false,
                             .host = false,
                             .storage = false,
                             .budget = Seconds(0.1),
                             .images_path = folder.path(),
                             .progress = [&](const std::string& part) { parts.push_back(part); }});
  ASSERT_TRUE(seen) << to_text(seen.error());
  EXPECT_EQ(parts, std::vector<std::string>{"image decoding"});
  EXPECT_FALSE(seen->memory.has_value());
  EXPECT_TRUE(seen->host.empty());
  EXPECT_TRUE(seen->storage.empty());
  ASSERT_TRUE(seen->images.has_value());
  EXPECT_GE(seen->images->rates.size(), 1U);
  EXPECT_GE(seen->conditions.threads, 1);
  EXPECT_GT(seen->took.value(), 0);
}

TEST(Measure, AFolderThatIsNoneIsAnError) {
  const auto seen = measure({.memory = false,
                             .host = false,
                             .images = false,
                             .budget = Seconds(0.1),
                             .storage_paths = {"/there/is/no/such/folder"}});
  ASSERT_FALSE(seen);
  EXPECT_EQ(seen.error().code, ErrorCode::unreadable);
}

TEST(Measurements, HaveNamesForAllKinds) {
  EXPECT_STREQ(name_of(facts::ImageWork::jpeg_quarter), "jpeg 1/4");
  EXPECT_STREQ(name_of(facts::StoragePattern::small_files), "small files");
}

}  // namespace
}  // namespace steelyard::probe
