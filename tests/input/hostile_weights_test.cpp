// Files of weights that nobody should believe, given to the program as a user would: status 2, one
// message that says what is wrong, nothing planned.
#include <gtest/gtest.h>

#include "input/run_program.h"

namespace steelyard {
namespace {

void expect_refused(const std::filesystem::path& file, const std::string& says) {
  for (const char* command : {"plan", "model"}) {
    std::vector<std::string> arguments = {command};
    if (command == std::string("plan")) {
      arguments.insert(arguments.end(), {"--gpu", "h100-sxm-80gb", "--gpus", "1", "--model"});
    }
    arguments.push_back(file.string());
    const auto ran = testing::run_steelyard(arguments);
    EXPECT_EQ(ran.status, 2) << command << " " << file << ran.messages;
    EXPECT_TRUE(ran.output.empty()) << ran.output.substr(0, 80);
    EXPECT_NE(ran.messages.find(says), std::string::npos) << ran.messages << "expected: " << says;
  }
}

// --- safetensors ---

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  return bytes + rest;
}

void expect_refused_header(const std::string& header, const std::string& says,
                           std::uint64_t length = 0) {
  const TemporaryFolder folder;
  folder.write("config.json", R"({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2})");
  const std::string bytes =
      with_length(length > 0 ? length : header.size(), header) + std::string(8, 'w');
  expect_refused(folder.write("model.safetensors", bytes), says);
}

std::string entry(const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(HostileSafetensors, AreRefused) {
  const std::string good = entry("[2]", "[0,8]");
  expect_refused_header(good, "header that ends inside", std::uint64_t{1} << 63);
  expect_refused_header(good, "header that ends inside", ~std::uint64_t{0});
  expect_refused_header(entry("[2]", "[8,16]"), "tensor w");         // beyond the file
  expect_refused_header(entry("[4]", "[0,16]"), "8 bytes of data");  // longer than it
  expect_refused_header(entry("[2]", "[9223372036854775800,9223372036854775807]"), "tensor w");
  expect_refused_header(entry("[9223372036854775808]", "[0,8]"), "64 bits");
  expect_refused_header(entry("[9223372036854775807,9223372036854775807]", "[0,8]"),
                        "nobody can count");
  expect_refused_header(entry("[4294967296,4294967296]", "[0,8]"), "nobody can count");
  expect_refused_header(entry("[-2]", "[0,8]"), "no shape");
  expect_refused_header(std::string(100'000, '['), "model.safetensors");
}

// --- ONNX ---

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  return bytes + static_cast<char>(value);
}

std::string number(std::uint32_t field, std::uint64_t value) {
  return varint(field << 3) + varint(value);
}

std::string bytes(std::uint32_t field, const std::string& content) {
  return varint(field << 3 | 2) + varint(content.size()) + content;
}

std::string node(const char* type, const char* a, const char* b, const char* out) {
  return bytes(1, bytes(1, a) + bytes(1, b) + bytes(2, out) + bytes(4, type));
}

std::string value(std::uint32_t field, const char* name, std::uint64_t dim) {
  const std::string dims = bytes(1, number(1, 1)) + bytes(1, number(1, dim));
  return bytes(field, bytes(1, name) + bytes(2, bytes(1, number(1, 1) + bytes(2, dims))));
}

std::string weights(std::uint64_t rows, std::uint64_t columns, const std::string& rest = "") {
  return bytes(5, number(1, rows) + number(1, columns) + number(2, 1) + bytes(8, "w") + rest);
}

void expect_refused_graph(const std::string& graph, const std::string& says) {
  const TemporaryFolder folder;
  folder.write("weights.bin", std::string(64, 'w'));
  expect_refused(folder.write("model.onnx", number(1, 8) + bytes(8, bytes(1, "") + number(2, 17)) +
                                                bytes(7, graph)),
                 says);
}

TEST(HostileOnnx, IsRefused) {
  constexpr std::uint64_t kSign = std::uint64_t{1} << 63;
  const std::string ends = value(11, "x", 4) + value(12, "y", 4);
  const std::string product = node("MatMul", "x", "w", "y");
  expect_refused_graph(weights(kSign, 4) + ends + product, "-9223372036854775808");
  expect_refused_graph(weights(kSign - 1, kSign - 1) + ends + product, "nobody can count");
  expect_refused_graph(weights(4, 4) + value(11, "x", kSign) + value(12, "y", 4) + product,
                       "-9223372036854775808");
  expect_refused_graph(weights(4, 4) + value(11, "x", kSign - 1) + value(12, "y", 4) + product,
                       "x");
  expect_refused_graph(weights(4, 4) + ends + node("Add", "x", "b", "a") +
                           node("Add", "a", "w", "b") + node("Add", "a", "b", "y"),
                       "circle");
  const auto outside = [](std::uint64_t offset) {
    const auto pair = [](const std::string& key, const std::string& text) {
      return bytes(13, bytes(1, key) + bytes(2, text));
    };
    return pair("location", "weights.bin") + pair("offset", std::to_string(offset)) +
           pair("length", "64") + number(14, 1);
  };
  expect_refused_graph(weights(4, 4, outside(1)) + ends + product, "weights.bin of 64 bytes");
  expect_refused_graph(weights(4, 4, outside(kSign)) + ends + product, "weights.bin of 64 bytes");
  // A count of bytes beyond the file.
  expect_refused_graph(weights(4, 4) + ends + product + varint(1 << 3 | 2) + varint(kSign), "onnx");
}

}  // namespace
}  // namespace steelyard
