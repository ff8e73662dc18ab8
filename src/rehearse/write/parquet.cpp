// A parquet file of one required column (apache/parquet-format, parquet.thrift; Thrift's compact
// protocol). A row group is one data page: no levels are stored for a required column.
#include <algorithm>

#include "rehearse/write/writers.h"

namespace steelyard::rehearse {
namespace {

constexpr unsigned kI32 = 5, kI64 = 6, kBinary = 8, kList = 9, kStruct = 12;

// Structs written field by field, in the order of their ids.
class Thrift {
 public:
  Thrift& i32(unsigned id, std::int64_t value) { return head(id, kI32).number(value); }
  Thrift& i64(unsigned id, std::int64_t value) { return head(id, kI64).number(value); }
  Thrift& text(unsigned id, std::string_view value) { return head(id, kBinary).binary(value); }
  Thrift& list(unsigned id, unsigned type, std::uint64_t size) {
    head(id, kList);
    if (size < 15) {
      bytes_.push_back(static_cast<char>(size << 4 | type));
      return *this;
    }
    bytes_.push_back(static_cast<char>(15U << 4 | type));
    return varint(size);
  }
  Thrift& number(std::int64_t value) {
    return varint(static_cast<std::uint64_t>(value) << 1 ^ static_cast<std::uint64_t>(value >> 63));
  }
  Thrift& binary(std::string_view value) {
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  // A struct as a field (or, with begin(), as an element of a list), then its end.
  Thrift& open(unsigned id) {
    head(id, kStruct);
    return begin();
  }
  Thrift& begin() {
    before_.push_back(0);
    return *this;
  }
  Thrift& end() {
    bytes_.push_back(0);
    before_.pop_back();
    return *this;
  }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  Thrift& head(unsigned id, unsigned type) {
    bytes_.push_back(static_cast<char>((id - before_.back()) << 4 | type));  // ids below 15
    before_.back() = id;
    return *this;
  }
  Thrift& varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>((value & 0x7f) | 0x80));
    bytes_.push_back(static_cast<char>(value));
    return *this;
  }

  std::string bytes_{};
  std::vector<unsigned> before_{0};  // the id of the last field, by depth
};

struct Group {
  std::int64_t offset = 0, bytes = 0, rows = 0;
};

constexpr std::int64_t kPlain = 0, kRle = 3, kFixedLengthByteArray = 7, kRequired = 0;

std::string page_header(std::int64_t bytes, std::int64_t rows) {
  Thrift thrift;
  thrift.i32(1, 0).i32(2, bytes).i32(3, bytes).open(5);  // a data page
  thrift.i32(1, rows).i32(2, kPlain).i32(3, kRle).i32(4, kRle).end().end();
  return thrift.bytes();
}

std::string metadata(std::uint64_t record, std::int64_t rows, const std::vector<Group>& groups) {
  Thrift thrift;
  thrift.i32(1, 1).list(2, kStruct, 2);
  thrift.begin().text(4, "schema").i32(5, 1).end();
  thrift.begin().i32(1, kFixedLengthByteArray).i32(2, static_cast<std::int64_t>(record));
  thrift.i32(3, kRequired).text(4, "data").end();
  thrift.i64(3, rows).list(4, kStruct, groups.size());
  for (const Group& group : groups) {
    thrift.begin().list(1, kStruct, 1).begin().i64(2, group.offset).open(3);
    thrift.i32(1, kFixedLengthByteArray).list(2, kI32, 1).number(kPlain);
    thrift.list(3, kBinary, 1).binary("data").i32(4, 0).i64(5, group.rows);
    thrift.i64(6, group.bytes).i64(7, group.bytes).i64(9, group.offset).end().end();
    thrift.i64(2, group.bytes).i64(3, group.rows).end();
  }
  thrift.text(6, "steelyard").end();
  return thrift.bytes();
}

// A large record is a row group of its own, so that it can be read by itself.
std::int64_t rows_per_group(std::uint64_t record) {
  constexpr std::uint64_t kGroup = 1 << 20;
  return static_cast<std::int64_t>(std::max<std::uint64_t>(1, kGroup / record));
}

}  // namespace

Result<void> write_parquet(AtomicFile& file, RecordSource& source, std::uint64_t bytes,
                           std::int64_t rows) {
  if (bytes == 0 || bytes > (1U << 30)) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "bytes of a parquet record",
                 .found = std::to_string(bytes),
                 .accepted = "1 to 1 GiB"});
  }
  STEELYARD_CHECK(file.write("PAR1"));
  std::vector<Group> groups;
  const std::int64_t most = rows_per_group(bytes);
  for (std::int64_t row = 0; row < rows; row += most) {
    const std::int64_t count = std::min(most, rows - row);
    const std::uint64_t page = bytes * static_cast<std::uint64_t>(count);
    Group group{static_cast<std::int64_t>(file.size()), 0, count};
    STEELYARD_CHECK(file.write(page_header(static_cast<std::int64_t>(page), count)));
    STEELYARD_CHECK(source.prepare(page));
    STEELYARD_CHECK(source.give([&](ByteSpan piece) { return file.write(piece); }));
    group.bytes = static_cast<std::int64_t>(file.size()) - group.offset;
    groups.push_back(group);
  }
  std::string foot = metadata(bytes, rows, groups);
  const std::uint64_t length = foot.size();
  append_le(foot, length, 4);
  return file.write(foot + "PAR1");
}

}  // namespace steelyard::rehearse
