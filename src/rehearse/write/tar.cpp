#include <fmt/format.h>

#include "rehearse/write/writers.h"

namespace steelyard::rehearse {
namespace {

constexpr std::size_t kBlock = 512, kLongestName = 100;

std::string header(std::string_view name, std::uint64_t size, char type) {
  std::string block(kBlock, '\0');
  const auto set = [&](std::size_t at, std::string_view text) {
    block.replace(at, text.size(), text);
  };
  set(0, name.substr(0, kLongestName));
  set(100, "0000644");
  set(108, "0000000");
  set(116, "0000000");
  set(124, fmt::format("{:011o}", size));
  set(136, "00000000000");  // no time: the same each time
  block[156] = type;
  set(257, std::string_view("ustar\0"
                            "00",
                            8));
  set(148, "        ");
  unsigned sum = 0;
  for (const char byte : block) sum += static_cast<unsigned char>(byte);
  set(148, fmt::format("{:06o}", sum));
  block[154] = '\0';
  return block;
}

std::string padding(std::size_t size) {
  return std::string((kBlock - size % kBlock) % kBlock, '\0');
}

// "LENGTH key=value\n", where LENGTH counts its own digits too.
std::string pax_record(std::string_view key, std::string_view value) {
  const std::size_t rest = key.size() + value.size() + 3;
  std::size_t length = rest + 1;
  while (rest + fmt::to_string(length).size() != length) ++length;
  return fmt::format("{} {}={}\n", length, key, value);
}

}  // namespace

Result<void> write_tar_member(AtomicFile& file, const TarMember& member) {
  if (member.name.size() > kLongestName) {
    const std::string record = pax_record("path", member.name);
    STEELYARD_CHECK(
        file.write(header("pax", record.size(), 'x') + record + padding(record.size())));
  }
  STEELYARD_CHECK(file.write(header(member.name, member.content.size(), '0')));
  STEELYARD_CHECK(file.write(member.content));
  return file.write(padding(member.content.size()));
}

Result<void> write_tar_end(AtomicFile& file) {
  return file.write(std::string(2 * kBlock, '\0'));
}

}  // namespace steelyard::rehearse
