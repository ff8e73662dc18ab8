// Zip archives of arrays as numpy.savez writes them (PKWARE APPNOTE 4.3; numpy/lib/npyio.py).
#include <zlib.h>

#include <algorithm>

#include "rehearse/write/writers.h"

namespace steelyard::rehearse {
namespace {

constexpr std::uint64_t kMost32 = 0xffffffffU;
constexpr int kVersion = 45;  // that knows zip64

struct Member {
  std::string name;
  std::uint32_t crc = 0;
  std::uint64_t bytes = 0, offset = 0;
};

// Sizes stand in the zip64 field, as NumPy has it; the CRC is patched in when it is known.
Result<void> begin_member(AtomicFile& file, Member& member) {
  member.offset = file.size();
  std::string head = "PK\3\4";
  append_le(head, kVersion, 2);
  append_le(head, 0, 2);       // flags
  append_le(head, 0, 2);       // stored
  append_le(head, 0, 2);       // time
  append_le(head, 0x0021, 2);  // 1980-01-01
  append_le(head, 0, 4);       // CRC, patched
  append_le(head, kMost32, 4);
  append_le(head, kMost32, 4);
  append_le(head, member.name.size(), 2);
  append_le(head, 20, 2);
  head += member.name;
  append_le(head, 1, 2);
  append_le(head, 16, 2);
  append_le(head, member.bytes, 8);
  append_le(head, member.bytes, 8);
  return file.write(head);
}

Result<void> patch_crc(AtomicFile& file, const Member& member) {
  constexpr std::uint64_t kAt = 14;
  std::string crc;
  append_le(crc, member.crc, 4);
  return file.patch(member.offset + kAt,
                    ByteSpan(reinterpret_cast<const unsigned char*>(crc.data()), 4));
}

std::uint32_t crc_of(std::uint32_t before, ByteSpan bytes) {
  return static_cast<std::uint32_t>(::crc32_z(before, bytes.data(), bytes.size()));
}

void append_entry(std::string& to, const Member& member) {
  std::string wide;  // only what does not fit into 32 bits, in this order
  for (int i = 0; i < 2; ++i) {
    if (member.bytes >= kMost32) append_le(wide, member.bytes, 8);
  }
  if (member.offset >= kMost32) append_le(wide, member.offset, 8);
  to += "PK\1\2";
  append_le(to, 3 << 8 | kVersion, 2);  // made on Unix
  append_le(to, kVersion, 2);
  append_le(to, 0, 2);
  append_le(to, 0, 2);
  append_le(to, 0, 2);
  append_le(to, 0x0021, 2);
  append_le(to, member.crc, 4);
  append_le(to, std::min(member.bytes, kMost32), 4);
  append_le(to, std::min(member.bytes, kMost32), 4);
  append_le(to, member.name.size(), 2);
  append_le(to, wide.empty() ? 0 : wide.size() + 4, 2);
  append_le(to, 0, 2);            // comment
  append_le(to, 0, 2);            // disk
  append_le(to, 0, 2);            // internal attributes
  append_le(to, 0600U << 16, 4);  // permissions, as Python's zipfile sets them
  append_le(to, std::min(member.offset, kMost32), 4);
  to += member.name;
  if (wide.empty()) return;
  append_le(to, 1, 2);
  append_le(to, wide.size(), 2);
  to += wide;
}

Result<void> end_archive(AtomicFile& file, const std::vector<Member>& members) {
  const std::uint64_t offset = file.size();
  std::string end;
  for (const Member& member : members) append_entry(end, member);
  const std::uint64_t length = end.size();
  if (offset >= kMost32) {
    const std::uint64_t end64 = offset + length;
    end += "PK\6\6";
    append_le(end, 44, 8);
    append_le(end, kVersion, 2);
    append_le(end, kVersion, 2);
    append_le(end, 0, 8);  // disks
    append_le(end, members.size(), 8);
    append_le(end, members.size(), 8);
    append_le(end, length, 8);
    append_le(end, offset, 8);
    end += "PK\6\7";
    append_le(end, 0, 4);
    append_le(end, end64, 8);
    append_le(end, 1, 4);
  }
  end += "PK\5\6";
  append_le(end, 0, 4);
  append_le(end, members.size(), 2);
  append_le(end, members.size(), 2);
  append_le(end, length, 4);
  append_le(end, std::min(offset, kMost32), 4);
  append_le(end, 0, 2);
  return file.write(end);
}

}  // namespace

void append_le(std::string& to, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to.push_back(static_cast<char>(value >> (8 * i) & 0xffU));
}

Result<void> write_npz(AtomicFile& file, RecordSource& source, std::uint64_t bytes) {
  STEELYARD_TRY(data_bytes, source.prepare(bytes));
  const std::string x_header = npy_header("|u1", {data_bytes});
  Member x{"x.npy", 0, x_header.size() + data_bytes, 0};
  STEELYARD_CHECK(begin_member(file, x));
  STEELYARD_CHECK(file.write(x_header));
  x.crc =
      crc_of(0, ByteSpan(reinterpret_cast<const unsigned char*>(x_header.data()), x_header.size()));
  STEELYARD_CHECK(source.give([&](ByteSpan piece) {
    x.crc = crc_of(x.crc, piece);
    return file.write(piece);
  }));
  std::string label = npy_header("<i8", {1});
  append_le(label, 0, 8);
  Member y{"y.npy",
           crc_of(0, ByteSpan(reinterpret_cast<const unsigned char*>(label.data()), label.size())),
           label.size(), 0};
  STEELYARD_CHECK(begin_member(file, y));
  STEELYARD_CHECK(file.write(label));
  STEELYARD_CHECK(end_archive(file, {x, y}));
  STEELYARD_CHECK(patch_crc(file, x));
  return patch_crc(file, y);
}

}  // namespace steelyard::rehearse
