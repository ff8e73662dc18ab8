// The reader of ONNX files: bytes written here by hand, whole and hostile.
#include "codec/onnx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "temporary_folder.h"

namespace steelyard::codec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string varint(std::uint64_t value) {
  std::string bytes;
  while (value >= 0x80) {
    bytes += static_cast<char>((value & 0x7f) | 0x80);
    value >>= 7;
  }
  return bytes + static_cast<char>(value);
}

std::string number(std::uint32_t field, std::uint64_t value) {
  return varint(field << 3) + varint(value);
}

std::string bytes(std::uint32_t field, const std::string& content) {
  return varint(field << 3 | 2) + varint(content.size()) + content;
}

// TensorProto: dims, data_type, name, and what else is given.
std::string tensor(const std::string& name, const std::vector<std::uint64_t>& dims,
                   std::uint64_t type, const std::string& rest = "") {
  std::string message;
  for (const std::uint64_t dim : dims) message += number(1, dim);
  return message + number(2, type) + bytes(8, name) + rest;
}

std::string model(const std::string& graph) {
  return number(1, 8) + bytes(2, "hand") + bytes(8, bytes(1, "") + number(2, 17)) + bytes(7, graph);
}

struct Read {
  std::shared_ptr<const facts::OnnxModel> model;
  std::string error;
};

Read read(const std::string& content, const OnnxLimits& limits = {}) {
  const TemporaryFolder folder;
  auto result = read_onnx(folder.write("model.onnx", content), limits);
  if (!result) return {nullptr, to_text(result.error())};
  return {*result, ""};
}

TEST(OnnxFile, ReadsNodesAttributesAndValues) {
  const std::string ints = bytes(8, varint(3) + varint(static_cast<std::uint64_t>(-1)));  // packed
  const std::string attribute = bytes(1, "axes") + ints + number(20, 7);
  const std::string node = bytes(1, "x") + bytes(1, "") + bytes(2, "y") + bytes(3, "n") +
                           bytes(4, "ReduceMean") + bytes(5, attribute) + bytes(7, "ai.onnx");
  const std::string dims = bytes(1, bytes(2, "batch")) + bytes(1, number(1, 7)) + bytes(1, "");
  const std::string value = bytes(1, "x") + bytes(2, bytes(1, number(1, 1) + bytes(2, dims)));
  const Read got = read(model(bytes(1, node) + bytes(11, value) + bytes(12, value)));
  ASSERT_TRUE(got.model) << got.error;
  EXPECT_EQ(got.model->operator_sets.at(0).version, 17);
  const facts::OnnxNode& first = got.model->graph.nodes.at(0);
  EXPECT_EQ(first.op_type, "ReduceMean");
  EXPECT_EQ(first.domain, "");
  EXPECT_THAT(first.inputs, ElementsAre("x", ""));
  EXPECT_THAT(first.attributes.at(0).wholes, ElementsAre(3, -1));
  const facts::OnnxValueInfo& input = got.model->graph.inputs.at(0);
  EXPECT_EQ(input.dims.at(0).symbol, "batch");
  EXPECT_EQ(input.dims.at(1).value, 7);
  EXPECT_FALSE(input.dims.at(2).value);
}

TEST(OnnxFile, KeepsSmallValuesAndPassesOverWeights) {
  const std::string whole = tensor("s", {2}, 7,
                                   bytes(9, std::string("\2\0\0\0\0\0\0\0\377\377\377"
                                                        "\377\377\377\377\377",
                                                        16)));
  const std::string half = tensor("h", {1}, 10, bytes(9, std::string("\0\xc0", 2)));  // -2.0
  const std::string typed = tensor("t", {2}, 1, bytes(4, std::string("\0\0\x80\x3f\0\0\0\x40", 8)));
  const std::string large = tensor("w", {1000, 1000}, 1, bytes(9, std::string(4'000'000, 'a')));
  const Read got =
      read(model(bytes(5, whole) + bytes(5, half) + bytes(5, typed) + bytes(5, large)));
  ASSERT_TRUE(got.model) << got.error;
  const auto& held = got.model->graph.initializers;
  EXPECT_THAT(held.at(0).wholes.value(), ElementsAre(2, -1));
  EXPECT_THAT(held.at(1).reals.value(), ElementsAre(-2.0));
  EXPECT_THAT(held.at(2).reals.value(), ElementsAre(1.0, 2.0));
  EXPECT_FALSE(held.at(3).reals);
  EXPECT_THAT(held.at(3).dims, ElementsAre(1000, 1000));
}

TEST(OnnxFile, TruncatedAnywhereIsRefused) {
  const std::string whole = model(bytes(5, tensor("w", {2, 3}, 1, bytes(9, std::string(24, 'a')))) +
                                  bytes(1, bytes(1, "w") + bytes(2, "y") + bytes(4, "Relu")));
  ASSERT_TRUE(read(whole).model);
  for (std::size_t length = 1; length < whole.size(); ++length) {
    const Read got = read(whole.substr(0, length));
    // What ends between two fields of the outermost message is a smaller file, still without a
    // graph.
    EXPECT_FALSE(got.model) << length;
  }
}

TEST(OnnxFile, NoiseIsRefusedOrReadButNeverCrashes) {
  std::mt19937 random(7);
  const std::string whole =
      model(bytes(5, tensor("w", {2, 3}, 1, bytes(9, std::string(24, 'a')))) +
            bytes(1, bytes(1, "w") + bytes(2, "y") + bytes(4, "Relu") +
                         bytes(5, bytes(1, "g") + bytes(6, bytes(2, "inner")))) +
            bytes(11, bytes(1, "x") + bytes(2, bytes(1, number(1, 1)))));
  for (int round = 0; round < 2000; ++round) {
    std::string spoiled = whole;
    for (int i = 0; i < 3; ++i) spoiled[random() % spoiled.size()] = static_cast<char>(random());
    (void)read(spoiled);
  }
}

TEST(OnnxFile, ClaimsBeyondTheFileAreRefused) {
  EXPECT_THAT(read(varint(7 << 3 | 2) + varint(1ULL << 40)).error,
              HasSubstr("bytes where 0 are left"));
  EXPECT_THAT(read(std::string(11, '\xff')).error, HasSubstr("more than ten bytes"));
  EXPECT_THAT(read(varint(7 << 3 | 3)).error, HasSubstr("wire type 3"));
  EXPECT_THAT(read(std::string("\x08\x80", 2)).error, HasSubstr("cut off"));
  EXPECT_THAT(read("").error, HasSubstr("an empty file"));
  EXPECT_THAT(read(number(1, 8)).error, HasSubstr("no graph"));
}

TEST(OnnxFile, AbsurdTensorsAreRefused) {
  const auto refused = [](const std::string& content) {
    return read(model(bytes(5, content))).error;
  };
  EXPECT_THAT(refused(tensor("w", {1ULL << 63}, 1)), HasSubstr("a size of -9223372036854775808"));
  EXPECT_THAT(refused(tensor("w", {1ULL << 40, 1ULL << 40}, 1)), HasSubstr("nobody can count"));
  EXPECT_THAT(refused(tensor("w", {4}, 1, bytes(9, "abc"))), HasSubstr("3 bytes of data, not 16"));
  EXPECT_THAT(refused(tensor("w", {4}, 99)), HasSubstr("element type 99"));
  EXPECT_THAT(refused(tensor("w", std::vector<std::uint64_t>(65, 1), 1)),
              HasSubstr("64 dimensions"));
}

TEST(OnnxFile, DeepNestingIsRefused) {
  std::string graph = bytes(2, "innermost");
  for (int i = 0; i < 40; ++i) graph = bytes(1, bytes(4, "If") + bytes(5, bytes(6, graph)));
  EXPECT_THAT(read(model(graph)).error, HasSubstr("nested deeper than 16"));
}

TEST(OnnxFile, ManyNodesAreRefused) {
  OnnxLimits limits;
  limits.nodes = 100;
  std::string graph;
  for (int i = 0; i < 101; ++i) graph += bytes(1, "");
  EXPECT_THAT(read(model(graph), limits).error, HasSubstr("more than 100 nodes"));
}

std::string external(const std::string& location, std::uint64_t offset, std::uint64_t length) {
  const auto entry = [](const std::string& key, const std::string& value) {
    return bytes(13, bytes(1, key) + bytes(2, value));
  };
  return entry("location", location) + entry("offset", std::to_string(offset)) +
         entry("length", std::to_string(length)) + number(14, 1);
}

TEST(OnnxFile, ExternalDataLiesBesideAndInside) {
  const TemporaryFolder folder;
  folder.write("weights.bin", std::string(64, 'a'));
  const auto with = [&](const std::string& rest) {
    const auto result =
        read_onnx(folder.write("model.onnx", model(bytes(5, tensor("w", {2, 4}, 1, rest)))));
    return result ? std::string("read") : to_text(result.error());
  };
  EXPECT_EQ(with(external("weights.bin", 32, 32)), "read");
  EXPECT_EQ(with(external("elsewhere.bin", 1 << 20, 32)), "read");  // weights need not be there
  EXPECT_THAT(with(external("weights.bin", 40, 32)), HasSubstr("in weights.bin of 64 bytes"));
  EXPECT_THAT(with(external("weights.bin", ~0ULL, 32)), HasSubstr("of 64 bytes"));
  EXPECT_THAT(with(external("../weights.bin", 0, 32)), HasSubstr("beside the model"));
  EXPECT_THAT(with(external("/etc/passwd", 0, 32)), HasSubstr("beside the model"));
  EXPECT_THAT(with(external("weights.bin", 0, 31)), HasSubstr("31 bytes of external data, not 32"));
}

}  // namespace
}  // namespace steelyard::codec
