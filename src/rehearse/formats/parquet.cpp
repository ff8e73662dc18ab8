// Parquet (apache/parquet-format, parquet.thrift): only as far as to know where the row groups lie.
// The end of a file is the metadata (Thrift's compact protocol), its length (4 bytes), "PAR1".
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>

#include "rehearse/formats/index.h"

namespace steelyard::rehearse {
namespace {

// The types of Thrift's compact protocol (thrift/doc/specs/thrift-compact-protocol.md).
enum Type : unsigned {
  kStop = 0,
  kTrue = 1,
  kFalse = 2,
  kByte = 3,
  kI16 = 4,
  kI32 = 5,
  kI64 = 6,
  kDouble = 7,
  kBinary = 8,
  kList = 9,
  kSet = 10,
  kMap = 11,
  kStruct = 12
};
constexpr int kDeepest = 32;

// Reads values one by one; after anything malformed `good` is false and all reads give zero.
class Thrift {
 public:
  explicit Thrift(std::string_view bytes) : bytes_(bytes) {}

  [[nodiscard]] bool good() const { return good_; }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const unsigned byte = one();
      value |= static_cast<std::uint64_t>(byte & 0x7fU) << shift;
      if ((byte & 0x80U) == 0) return value;
    }
    good_ = false;
    return 0;
  }
  std::int64_t number() {
    const std::uint64_t zigzag = varint();
    return static_cast<std::int64_t>(zigzag >> 1) ^ -static_cast<std::int64_t>(zigzag & 1U);
  }
  // The next field of a struct; kStop at its end. `id` is that of the field before, then its own.
  Type field(std::int64_t& id) {
    const unsigned head = one();
    if (!good_ || head == 0) return kStop;
    id = head >> 4 != 0 ? id + (head >> 4) : number();
    return static_cast<Type>(head & 15U);
  }
  struct ListHead {
    Type type = kStop;
    std::uint64_t size = 0;
  };
  ListHead list() {
    const unsigned head = one();
    ListHead list{static_cast<Type>(head & 15U), head >> 4};
    if (list.size == 15) list.size = varint();
    if (list.size > bytes_.size()) good_ = false;  // each element takes at least a byte
    return good_ ? list : ListHead{};
  }
  void skip(Type type, int depth = 0) {
    if (depth > kDeepest) good_ = false;
    if (!good_) return;
    switch (type) {
      case kTrue:
      case kFalse: break;
      case kByte: one(); break;
      case kI16:
      case kI32:
      case kI64: varint(); break;
      case kDouble: pass(8); break;
      case kBinary: pass(varint()); break;
      case kList:
      case kSet: skip_list(depth); break;
      case kMap: skip_map(depth); break;
      case kStruct: skip_struct(depth); break;
      default: good_ = false;
    }
  }

 private:
  unsigned one() {
    if (bytes_.empty()) good_ = false;
    if (!good_) return 0;
    const auto byte = static_cast<unsigned char>(bytes_.front());
    bytes_.remove_prefix(1);
    return byte;
  }
  void pass(std::uint64_t bytes) {
    if (bytes > bytes_.size()) good_ = false;
    if (good_) bytes_.remove_prefix(static_cast<std::size_t>(bytes));
  }
  void skip_element(Type type, int depth) {
    // In a list a truth value takes a byte.
    if (type == kTrue || type == kFalse)
      one();
    else
      skip(type, depth);
  }
  void skip_list(int depth) {
    const ListHead head = list();
    for (std::uint64_t i = 0; i < head.size && good_; ++i) skip_element(head.type, depth + 1);
  }
  void skip_map(int depth) {
    const std::uint64_t size = varint();
    const unsigned types = size != 0 ? one() : 0;
    for (std::uint64_t i = 0; i < size && good_; ++i) {
      skip_element(static_cast<Type>(types >> 4), depth + 1);
      skip_element(static_cast<Type>(types & 15U), depth + 1);
    }
  }
  void skip_struct(int depth) {
    std::int64_t id = 0;
    for (Type type = field(id); type != kStop && good_; type = field(id)) skip(type, depth + 1);
  }

  std::string_view bytes_;
  bool good_ = true;
};

struct Range {
  std::uint64_t begin = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t end = 0;
};

// Widens the range by ColumnChunk.meta_data (3): total_compressed_size (7), data_page_offset (9),
// dictionary_page_offset (11).
void read_chunk_metadata(Thrift& thrift, Range& range) {
  std::int64_t id = 0, size = 0, data = -1, dictionary = -1;
  for (Type type = thrift.field(id); type != kStop; type = thrift.field(id)) {
    if (id == 7 && type == kI64)
      size = thrift.number();
    else if (id == 9 && type == kI64)
      data = thrift.number();
    else if (id == 11 && type == kI64)
      dictionary = thrift.number();
    else
      thrift.skip(type);
  }
  // Some writers state a dictionary at 0 where there is none.
  const std::int64_t begin = dictionary > 0 && dictionary < data ? dictionary : data;
  if (begin < 0 || size < 0) return;
  const auto start = static_cast<std::uint64_t>(begin);
  range.begin = std::min(range.begin, start);
  range.end = std::max(range.end, start + static_cast<std::uint64_t>(size));
}

void read_chunk(Thrift& thrift, Range& range) {
  std::int64_t id = 0;
  for (Type type = thrift.field(id); type != kStop; type = thrift.field(id)) {
    if (id == 3 && type == kStruct)
      read_chunk_metadata(thrift, range);
    else
      thrift.skip(type);
  }
}

// RowGroup.columns (1).
Range read_row_group(Thrift& thrift) {
  Range range;
  std::int64_t id = 0;
  for (Type type = thrift.field(id); type != kStop; type = thrift.field(id)) {
    if (id != 1 || type != kList) {
      thrift.skip(type);
      continue;
    }
    const Thrift::ListHead columns = thrift.list();
    for (std::uint64_t i = 0; i < columns.size && thrift.good(); ++i) read_chunk(thrift, range);
  }
  return range;
}

// FileMetaData.row_groups (4).
Part<void> add_row_groups(SourceFile& file, Thrift thrift, std::uint64_t footer, Index& index) {
  std::int64_t id = 0;
  for (Type type = thrift.field(id); type != kStop; type = thrift.field(id)) {
    if (id != 4 || type != kList) {
      thrift.skip(type);
      continue;
    }
    const Thrift::ListHead groups = thrift.list();
    for (std::uint64_t i = 0; i < groups.size; ++i) {
      const Range range = read_row_group(thrift);
      if (!thrift.good()) break;
      if (range.begin >= range.end || range.end > footer || !file.holds(range.begin, 0)) {
        return broken_at(footer, fmt::format("states that row group {} lies at {} to {}", i,
                                             range.begin, range.end));
      }
      if (!index.add(range.begin, range.end - range.begin, Encoding::raw)) return {};
    }
  }
  if (!thrift.good()) return broken_at(footer, "has malformed parquet metadata");
  return {};
}

}  // namespace

Part<void> index_parquet(SourceFile& file, Index& index) {
  constexpr std::uint64_t kMagic = 4, kEnd = 8;
  constexpr std::uint64_t kLongest = 64U << 20;
  if (file.size() < kMagic + kEnd) return broken_at(0, "is too short for a parquet file");
  const Part<std::string> head = file.text(0, kMagic, kMagic);
  const Part<std::string> tail = file.text(file.size() - kEnd, kEnd, kEnd);
  if (!head || !tail) return Broken(!head ? head.error() : tail.error());
  if (*head != "PAR1" || tail->substr(4) != "PAR1") {
    return broken_at(0, "is truncated or no parquet file (it must begin and end with PAR1)");
  }
  const std::uint64_t length = le32(reinterpret_cast<const unsigned char*>(tail->data()));
  if (length > file.size() - kMagic - kEnd) {
    return broken_at(file.size() - kEnd, fmt::format("states metadata of {} bytes", length));
  }
  const std::uint64_t footer = file.size() - kEnd - length;
  if (const std::uint64_t fixed = index.options().record_bytes; fixed != 0) {
    for (std::uint64_t at = kMagic; footer - at >= fixed; at += fixed) {
      if (!index.add(at, fixed, Encoding::raw)) return {};
    }
    return {};
  }
  const Part<std::string> metadata = file.text(footer, length, kLongest);
  if (!metadata) return Broken(metadata.error());
  return add_row_groups(file, Thrift(*metadata), footer, index);
}

}  // namespace steelyard::rehearse
