// Zip archives of arrays as numpy.savez writes them: by the central directory (PKWARE APPNOTE 4.3),
// with zip64; members stored (method 0) or deflated (8). DLIO keeps the sample in member "x" and a
// label in "y" (dlio_benchmark/data_generator/npz_generator.py): with an "x.npy" only that is a
// record, otherwise every member is.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "rehearse/formats/index.h"

namespace steelyard::rehearse {
namespace {

constexpr std::uint64_t kEnd = 22, kLocator = 20, kEnd64 = 56, kCentral = 46, kLocal = 30;
constexpr std::uint32_t kUnknown32 = 0xffffffffU;

struct Directory {
  std::uint64_t offset = 0, bytes = 0, entries = 0;
};

struct Member {
  std::string name;
  std::uint64_t offset = 0;  // of the data
  std::uint64_t bytes = 0;   // as stored
  bool deflated = false;
};

struct Entry {  // as the central directory has it
  std::string name;
  std::uint64_t bytes = 0, plain_bytes = 0, local = 0;
  unsigned flags = 0, method = 0;
};

bool begins(const unsigned char* bytes, std::string_view magic) {
  return std::equal(magic.begin(), magic.end(), reinterpret_cast<const char*>(bytes));
}

// The end record lies at the end, before a comment of up to 65535 bytes.
Part<std::uint64_t> find_end(SourceFile& file) {
  if (file.size() < kEnd) return broken_at(0, "is too short for a zip archive");
  const std::uint64_t length = std::min<std::uint64_t>(file.size(), kEnd + 65535);
  const std::uint64_t start = file.size() - length;
  const Part<std::string> tail = file.text(start, length, length);
  if (!tail) return Broken(tail.error());
  const auto* bytes = reinterpret_cast<const unsigned char*>(tail->data());
  for (std::uint64_t at = length - kEnd + 1; at-- > 0;) {
    if (begins(bytes + at, "PK\5\6") && le16(bytes + at + 20) == length - at - kEnd) {
      return start + at;
    }
  }
  return broken_at(start, "is truncated or no zip archive: no end record");
}

Part<Directory> directory_of(SourceFile& file) {
  const Part<std::uint64_t> end = find_end(file);
  if (!end) return Broken(end.error());
  const auto record = file.at(*end, kEnd);
  if (!record) return Broken(record.error());
  const unsigned char* at = record->data();
  Directory directory{le32(at + 16), le32(at + 12), le16(at + 10)};
  if (*end >= kLocator) {
    const auto locator = file.at(*end - kLocator, kLocator);
    if (locator && begins(locator->data(), "PK\6\7")) {
      const std::uint64_t offset = le64(locator->data() + 8);
      const auto wide = file.at(offset, kEnd64);
      if (!wide || !begins(wide->data(), "PK\6\6")) {
        return broken_at(*end - kLocator, "has a zip64 locator that leads nowhere");
      }
      directory = {le64(wide->data() + 48), le64(wide->data() + 40), le64(wide->data() + 32)};
    }
  }
  if (!file.holds(directory.offset, directory.bytes) ||
      directory.entries > directory.bytes / kCentral) {
    return broken_at(*end, "has a zip directory that does not fit into the file");
  }
  return directory;
}

// Values that did not fit into 32 bits stand in the zip64 field (id 1), in this order, only those.
bool read_zip64(std::string_view extra, Entry& entry) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(extra.data());
  for (std::size_t at = 0; at + 4 <= extra.size();) {
    const std::size_t length = le16(bytes + at + 2);
    if (length > extra.size() - at - 4) return false;
    if (le16(bytes + at) == 1) {
      std::size_t value = at + 4;
      const std::size_t end = value + length;
      for (std::uint64_t* field : {&entry.plain_bytes, &entry.bytes, &entry.local}) {
        if (*field != kUnknown32) continue;
        if (end - value < 8) return false;
        *field = le64(bytes + value);
        value += 8;
      }
    }
    at += 4 + length;
  }
  return true;
}

Part<Entry> entry_at(SourceFile& file, std::uint64_t& at, std::uint64_t limit) {
  if (limit - at < kCentral) return broken_at(at, "has a zip directory that ends in an entry");
  const auto head = file.at(at, kCentral);
  if (!head) return Broken(head.error());
  const unsigned char* bytes = head->data();
  if (!begins(bytes, "PK\1\2")) return broken_at(at, "has no zip entry");
  Entry entry{
      {}, le32(bytes + 20), le32(bytes + 24), le32(bytes + 42), le16(bytes + 8), le16(bytes + 10)};
  const std::uint64_t name = le16(bytes + 28), extra = le16(bytes + 30);
  const std::uint64_t comment = le16(bytes + 32);
  if (limit - at - kCentral < name + extra + comment) {
    return broken_at(at, "has a zip directory that ends in an entry");
  }
  const Part<std::string> text = file.text(at + kCentral, name + extra, 2 * 65535);
  if (!text) return Broken(text.error());
  entry.name = text->substr(0, static_cast<std::size_t>(name));
  const auto rest = std::string_view(*text).substr(static_cast<std::size_t>(name));
  if (!read_zip64(rest, entry)) return broken_at(at, "has a malformed zip64 field");
  at += kCentral + name + extra + comment;
  return entry;
}

// Where the data begin is known only from the local header: its extra field may differ.
Part<Member> member_of(SourceFile& file, const Entry& entry) {
  constexpr unsigned kEncrypted = 1;
  if ((entry.flags & kEncrypted) != 0) {
    return broken_at(entry.local, fmt::format("has an encrypted member ({})", entry.name));
  }
  if (entry.method != 0 && entry.method != 8) {
    return broken_at(entry.local, fmt::format("has member {} packed by method {} (0 stored and 8 "
                                              "deflated are known)",
                                              entry.name, entry.method));
  }
  const auto head = file.at(entry.local, kLocal);
  if (!head || !begins(head->data(), "PK\3\4")) {
    return broken_at(entry.local,
                     fmt::format("has no member {} where its directory says", entry.name));
  }
  const std::uint64_t data =
      entry.local + kLocal + le16(head->data() + 26) + le16(head->data() + 28);
  if (!file.holds(data, entry.bytes)) {
    return broken_at(data, fmt::format("is truncated: member {} of {} bytes goes past the end ({})",
                                       entry.name, entry.bytes, file.size()));
  }
  return Member{entry.name, data, entry.bytes, entry.method == 8};
}

bool takes(Index& index, const Member& member) {
  return index.add(member.offset, member.bytes, encoding_of_name(member.name), member.deflated);
}

}  // namespace

Part<void> index_npz(SourceFile& file, Index& index) {
  const Part<Directory> directory = directory_of(file);
  if (!directory) return Broken(directory.error());
  const std::uint64_t limit = directory->offset + directory->bytes;
  std::vector<Member> members;
  std::uint64_t at = directory->offset;
  for (std::uint64_t i = 0; i < directory->entries; ++i) {
    const Part<Entry> entry = entry_at(file, at, limit);
    if (!entry) return Broken(entry.error());
    if (entry->name.ends_with('/')) continue;  // a folder
    const Part<Member> member = member_of(file, *entry);
    if (!member) return Broken(member.error());
    if (member->name == "x.npy") {
      (void)takes(index, *member);
      return {};
    }
    members.push_back(*member);
    if (members.size() >= index.options().max_records) break;
  }
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.offset < b.offset; });
  for (const Member& member : members) {
    if (!takes(index, member)) break;
  }
  return {};
}

}  // namespace steelyard::rehearse
