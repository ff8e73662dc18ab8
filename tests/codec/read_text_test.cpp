#include <gtest/gtest.h>
#include <sys/stat.h>

#include "codec/codec.h"
#include "codec/temporary_folder.h"

namespace steelyard::codec {
namespace {

TEST(ReadText, ReadsARegularFileAndDropsTheByteOrderMark) {
  const TemporaryFolder folder;
  EXPECT_EQ(*read_text(folder.write("plain", "a = 1\n")), "a = 1\n");
  EXPECT_EQ(*read_text(folder.write("marked",
                                    "\xEF\xBB\xBF"
                                    "a = 1\n")),
            "a = 1\n");
}

TEST(ReadText, SaysWhyAFileCannotBeRead) {
  const TemporaryFolder folder;
  const auto missing = read_text(folder.path() / "missing");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::unreadable);
  EXPECT_EQ(missing.error().found, "no such file");

  const auto directory = read_text(folder.path());
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().found, "a directory");

  const auto empty = read_text(folder.write("empty", ""));
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().found, "an empty file");

  ASSERT_EQ(mkfifo((folder.path() / "pipe").c_str(), 0600), 0);
  const auto pipe = read_text(folder.path() / "pipe");
  ASSERT_FALSE(pipe) << "must not wait for a writer";
  EXPECT_EQ(pipe.error().code, ErrorCode::unreadable);

  const auto through_a_file = read_text(folder.path() / "empty" / "below");
  ASSERT_FALSE(through_a_file);
  EXPECT_EQ(through_a_file.error().code, ErrorCode::unreadable);

  const auto device = read_text("/dev/zero");
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code, ErrorCode::unreadable);
}

TEST(ReadText, RefusesALargeFileBeforeReadingIt) {
  const TemporaryFolder folder;
  const auto file = folder.write("large", "x");
  std::filesystem::resize_file(file, static_cast<std::uintmax_t>(kLargestFile.value()) + 1);
  const auto larger = read_text(file);
  ASSERT_FALSE(larger);
  EXPECT_EQ(larger.error().code, ErrorCode::too_large);
  EXPECT_EQ(larger.error().found, std::to_string(kLargestFile.value() + 1) + " bytes");

  std::filesystem::resize_file(file, static_cast<std::uintmax_t>(kLargestFile.value()));
  const auto largest = read_text(file);  // full of zero bytes, which are valid UTF-8
  ASSERT_TRUE(largest) << to_text(largest.error());
  EXPECT_EQ(static_cast<std::int64_t>(largest->size()), kLargestFile.value());
}

TEST(ReadText, NamesTheLineOfTheFirstByteThatIsNotUtf8) {
  const TemporaryFolder folder;
  const auto text = read_text(folder.write("latin1", "a = 1\nb = \"caf\xE9\"\n"));
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::bad_input);
  EXPECT_EQ(text.error().line, 2);
  EXPECT_NE(text.error().found.find("0xE9"), std::string::npos);
}

TEST(ReadValue, TakesTheFormatFromTheExtension) {
  const TemporaryFolder folder;
  EXPECT_EQ(*read_value(folder.write("a.toml", "a = 1")), facts::Value(facts::Object{{"a", 1}}));
  EXPECT_EQ(*read_value(folder.write("a.json", "{\"a\": 1}")),
            facts::Value(facts::Object{{"a", 1}}));
  EXPECT_EQ(*read_value(folder.write("no_extension", "[]")), facts::Value(facts::Array{}));
}

}  // namespace
}  // namespace steelyard::codec
