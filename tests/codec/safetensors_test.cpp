// Headers of safetensors files, hostile ones too. Real ones: tests/model/stored_weights_test.cpp.
#include "codec/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/codec.h"
#include "temporary_folder.h"

namespace steelyard::codec {
namespace {

using ::testing::HasSubstr;

std::string file_of(const std::string& header, std::size_t data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return bytes + header + std::string(data, 'w');
}

std::string read(const std::string& content) {
  const TemporaryFolder folder;
  const auto result = read_safetensors(folder.write("model.safetensors", content));
  return result ? std::to_string((*result)->tensors.size()) + " tensors" : to_text(result.error());
}

std::string entry(const char* dtype, const char* shape, const char* offsets) {
  return std::string("{\"w\":{\"dtype\":\"") + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}}";
}

TEST(Safetensors, ReadsNamesShapesAndTypes) {
  const TemporaryFolder folder;
  const auto result =
      read_safetensors(folder.write("model.safetensors", file_of(R"({"__metadata__":{"format":"pt"},
                  "b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},
                  "a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}})",
                                                                 16)));
  ASSERT_TRUE(result) << to_text(result.error());
  ASSERT_EQ((*result)->tensors.size(), 2u);
  EXPECT_EQ((*result)->tensors[1].name, "a");
  EXPECT_EQ((*result)->tensors[1].dtype, "BF16");
  EXPECT_EQ((*result)->tensors[1].bytes, 12);
  EXPECT_TRUE((*result)->tensors[0].shape.empty());
}

TEST(Safetensors, HostileHeadersAreRefused) {
  EXPECT_THAT(read("1234567"), HasSubstr("a file of 7 bytes"));
  EXPECT_THAT(read(std::string(7, '\xff') + std::string("\x7f") + "{}"), HasSubstr("ends inside"));
  EXPECT_THAT(read(file_of("[1]", 0)), HasSubstr("an object of tensors"));
  EXPECT_THAT(read(file_of("{", 0)), HasSubstr("model.safetensors"));
  EXPECT_THAT(read(file_of(std::string(100, '['), 0)), HasSubstr("model.safetensors"));
  EXPECT_THAT(read(file_of("{\"a\xff\":1}", 0)), HasSubstr("no UTF-8"));
  EXPECT_THAT(read(file_of(entry("F32", "[2]", "[0,4]"), 4)), HasSubstr("4 bytes of data"));
  EXPECT_THAT(read(file_of(entry("F33", "[1]", "[0,4]"), 4)), HasSubstr("dtype F33"));
  EXPECT_THAT(read(file_of(entry("F32", "[1]", "[4,8]"), 8)), HasSubstr("overlaps and holes"));
  EXPECT_THAT(read(file_of(entry("F32", "[1]", "[0,4]"), 2)), HasSubstr("2 bytes of data"));
  EXPECT_THAT(read(file_of(entry("F32", "[1]", "[8,4]"), 8)), HasSubstr("data_offsets"));
  EXPECT_THAT(read(file_of(entry("F32", "[-1]", "[0,4]"), 4)), HasSubstr("no shape"));
  EXPECT_THAT(read(file_of(entry("F32", "[4611686018427387904,4]", "[0,0]"), 0)),
              HasSubstr("nobody can count"));
  EXPECT_THAT(read(file_of(entry("F32", "[1e30]", "[0,4]"), 4)), HasSubstr("no shape"));
  EXPECT_THAT(read(file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                               "b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                           6)),
              HasSubstr("tensor b"));
}

TEST(Safetensors, IndexJoinsItsFiles) {
  const TemporaryFolder folder;
  folder.write("1.safetensors", file_of(entry("F32", "[1]", "[0,4]"), 4));
  folder.write("2.safetensors",
               file_of(R"({"v":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4));
  const auto with = [&](const std::string& map) {
    const auto result = read_safetensors_index(
        folder.write("model.safetensors.index.json", "{\"weight_map\":" + map + "}"));
    return result ? std::to_string((*result)->tensors.size()) : to_text(result.error());
  };
  EXPECT_EQ(with(R"({"w":"1.safetensors","v":"2.safetensors"})"), "2");
  EXPECT_THAT(with(R"({"w":"1.safetensors","u":"2.safetensors"})"), HasSubstr("tensor u"));
  EXPECT_THAT(with(R"({"w":"../1.safetensors"})"), HasSubstr("beside the index"));
  EXPECT_THAT(with(R"({"w":"3.safetensors"})"), HasSubstr("3.safetensors"));
  EXPECT_THAT(with(R"([])"), HasSubstr("weight_map"));
  folder.write("2.safetensors", file_of(entry("F32", "[1]", "[0,4]"), 4));
  EXPECT_THAT(with(R"({"w":"1.safetensors","v":"2.safetensors"})"), HasSubstr("two files"));
}

}  // namespace
}  // namespace steelyard::codec
