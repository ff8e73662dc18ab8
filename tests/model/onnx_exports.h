// Recorded exports (oracle_onnx.py): the bytes of real ONNX files without their weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "codec/codec.h"
#include "facts/value.h"
#include "support/inflate.h"

namespace steelyard::model {

inline std::string from_base64(std::string_view text) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t held = 0;
  int bits = 0;
  for (const char c : text) {
    const std::size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) break;  // the padding
    held = held << 6 | static_cast<std::uint32_t>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(held >> bits & 0xff);
  }
  return bytes;
}

struct OnnxExport {
  std::string name, bytes;
  std::int64_t batch = 1, sequence = 0, parameters = 0;
  std::int64_t saved_bytes = 0;  // 0: not recorded
  bool training = true;
  bool moves = true;     // to another batch than the exported one
  bool couples = false;  // samples meet each other
  facts::Value shapes;
};

inline std::vector<std::filesystem::path> onnx_exports() {
  std::vector<std::filesystem::path> files;
  const std::filesystem::path folder = std::filesystem::path(STEELYARD_TESTS_DIR) / "model/onnx";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.push_back(entry.path());
  }
  return files;
}

inline OnnxExport read_export(const std::filesystem::path& file) {
  const facts::Value record = codec::read_value(file).value();
  OnnxExport result;
  result.name = *record.find("name")->as_text();
  result.bytes = testing::Inflated(from_base64(*record.find("packed")->as_text())).text();
  result.batch = *record.find("batch")->as_whole();
  result.sequence = *record.find("sequence")->as_whole();
  result.parameters = *record.find("parameters")->as_whole();
  result.saved_bytes = *record.find("saved_bytes")->as_whole();
  result.training = *record.find("training")->as_bool();
  const facts::Value* moves = record.find("moves");
  result.moves = moves == nullptr || *moves->as_bool();
  const facts::Value* couples = record.find("couples");
  result.couples = couples != nullptr && *couples->as_bool();
  result.shapes = *record.find("shapes");
  return result;
}

}  // namespace steelyard::model
