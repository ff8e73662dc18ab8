// The formats are described in src/rehearse/formats/tfrecord.cpp.
#include "rehearse/formats/crc32c.h"
#include "rehearse/write/writers.h"

namespace steelyard::rehearse {
namespace {

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>((value & 0x7fU) | 0x80U));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

// Tag and length of a field that holds `bytes`.
std::string field(unsigned number, std::uint64_t bytes) {
  return std::string(1, static_cast<char>(number << 3 | 2U)) + varint(bytes);
}

// A map entry of Features up to where the bytes of its value begin.
std::string bytes_entry(std::string_view key, std::uint64_t bytes) {
  const std::string value = field(1, bytes);                         // BytesList.value
  const std::string list = field(1, value.size() + bytes) + value;   // Feature.bytes_list
  const std::string feature = field(2, list.size() + bytes) + list;  // the entry's value
  const std::string name = field(1, key.size()) + std::string(key);  // the entry's key
  const std::string entry = name + feature;
  return field(1, entry.size() + bytes) + entry;
}

std::string int64_entry(std::string_view key, std::uint64_t number) {
  const std::string packed = varint(number);
  const std::string value = field(1, packed.size()) + packed;  // Int64List.value
  const std::string list = field(3, value.size()) + value;     // Feature.int64_list
  const std::string entry = field(1, key.size()) + std::string(key) + field(2, list.size()) + list;
  return field(1, entry.size()) + entry;
}

ByteSpan bytes_of(const std::string& text) {
  return {reinterpret_cast<const unsigned char*>(text.data()), text.size()};
}

}  // namespace

Result<void> write_tfrecord(AtomicFile& file, RecordSource& source, std::uint64_t bytes,
                            std::string_view key) {
  STEELYARD_TRY(data_bytes, source.prepare(bytes));
  constexpr std::uint64_t kClasses = 1000;
  const std::string label = int64_entry("image/class/label", source.noise().below(kClasses));
  const std::string entry = bytes_entry(key, data_bytes);
  const std::string example = field(1, entry.size() + data_bytes + label.size()) + entry;
  std::string head;
  append_le(head, example.size() + data_bytes + label.size(), 8);
  append_le(head, masked(crc32c(bytes_of(head))), 4);
  STEELYARD_CHECK(file.write(head + example));
  std::uint32_t crc = crc32c(bytes_of(example));
  STEELYARD_CHECK(source.give([&](ByteSpan piece) {
    crc = crc32c(piece, crc);
    return file.write(piece);
  }));
  std::string foot = label;
  append_le(foot, masked(crc32c(bytes_of(label), crc)), 4);
  return file.write(foot);
}

}  // namespace steelyard::rehearse
