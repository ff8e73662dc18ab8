// Tar archives as WebDataset reads them: consecutive members whose paths agree up to the first dot
// of the file's name are one sample (webdataset/tariterators.py: base_plus_ext, group_by_keys); its
// image is the record. POSIX ustar, GNU long names and base-256 sizes, pax path and size.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>

#include "rehearse/formats/index.h"

namespace steelyard::rehearse {
namespace {

constexpr std::uint64_t kBlock = 512;
constexpr std::uint64_t kLongestHeader = 1 << 20;  // of a long name or a pax header

struct Header {
  std::string name;
  std::uint64_t size = 0;
  char type = '0';
};

// What an extension header says of the member that follows it.
struct Extension {
  std::optional<std::string> path;
  std::optional<std::uint64_t> size;
  bool sparse = false;
};

std::string_view field(std::span<const unsigned char> block, std::size_t at, std::size_t length) {
  const auto* start = reinterpret_cast<const char*>(block.data()) + at;
  return std::string_view(start,
                          static_cast<std::size_t>(std::find(start, start + length, '\0') - start));
}

std::optional<std::uint64_t> octal(std::string_view digits) {
  while (!digits.empty() && digits.front() == ' ') digits.remove_prefix(1);
  while (!digits.empty() && digits.back() == ' ') digits.remove_suffix(1);
  if (digits.empty()) return std::nullopt;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 8);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

// Twelve octal digits, or with the first bit set a big-endian number (GNU).
std::optional<std::uint64_t> size_of_member(std::span<const unsigned char> block) {
  constexpr std::size_t kAt = 124, kLength = 12;
  if ((block[kAt] & 0x80U) == 0) return octal(field(block, kAt, kLength));
  if (block[kAt] != 0x80) return std::nullopt;  // negative, or beyond 64 bits
  std::uint64_t value = 0;
  for (std::size_t i = kAt + 1; i < kAt + kLength; ++i) {
    if (value >> 56 != 0) return std::nullopt;
    value = value << 8 | block[i];
  }
  return value;
}

bool checksum_is_right(std::span<const unsigned char> block) {
  constexpr std::size_t kAt = 148, kLength = 8;
  const std::optional<std::uint64_t> stated = octal(field(block, kAt, kLength));
  if (!stated) return false;
  std::uint64_t of_unsigned = 0;
  std::int64_t of_signed = 0;  // some old writers summed signed bytes
  for (std::size_t i = 0; i < kBlock; ++i) {
    const unsigned char byte = i >= kAt && i < kAt + kLength ? ' ' : block[i];
    of_unsigned += byte;
    of_signed += static_cast<signed char>(byte);
  }
  return *stated == of_unsigned || static_cast<std::int64_t>(*stated) == of_signed;
}

Part<Header> header_from(std::span<const unsigned char> block, std::uint64_t offset) {
  if (!checksum_is_right(block)) return broken_at(offset, "has no tar header (wrong checksum)");
  const std::optional<std::uint64_t> size = size_of_member(block);
  if (!size) return broken_at(offset, "has a tar header with an impossible size");
  Header header{std::string(field(block, 0, 100)), *size, static_cast<char>(block[156])};
  // Only POSIX has a prefix; GNU ("ustar  ") keeps times there.
  const bool posix = field(block, 257, 6) == "ustar" && block[262] == 0;
  if (const std::string_view prefix = field(block, 345, 155); posix && !prefix.empty()) {
    header.name = std::string(prefix) + "/" + header.name;
  }
  return header;
}

// Records "LENGTH key=value\n", the length counting itself.
Part<void> read_pax(const std::string& text, std::uint64_t offset, Extension& extension) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 0;
    const char* start = text.data() + at;
    const char* limit = text.data() + text.size();
    const auto [end, error] = std::from_chars(start, limit, length);
    const auto digits = static_cast<std::size_t>(end - start);
    if (error != std::errc{} || end == limit || *end != ' ' || length > text.size() - at ||
        length < digits + 3 || start[length - 1] != '\n') {
      return broken_at(offset + at, "has a malformed pax header");
    }
    const std::string_view record(start + digits + 1, length - digits - 2);
    const std::size_t equals = record.find('=');
    if (equals == std::string_view::npos) {
      return broken_at(offset + at, "has a malformed pax header");
    }
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1);
    if (key == "path") extension.path = std::string(value);
    if (key.starts_with("GNU.sparse.")) extension.sparse = true;
    if (key == "size") {
      std::uint64_t size = 0;
      const auto [rest, bad] = std::from_chars(value.data(), value.data() + value.size(), size);
      if (bad != std::errc{} || rest != value.data() + value.size()) {
        return broken_at(offset + at, "has a pax header with an impossible size");
      }
      extension.size = size;
    }
    at += length;
  }
  return {};
}

struct Name {
  std::string_view key, extension;
};

// Up to the first dot after the last slash; nothing for a name without one, or that begins with
// one.
std::optional<Name> split(std::string_view name) {
  const std::size_t slash = name.rfind('/');
  const std::size_t base = slash == std::string_view::npos ? 0 : slash + 1;
  const std::size_t dot = name.find('.', base);
  if (dot == std::string_view::npos || dot == base) return std::nullopt;
  return Name{name.substr(0, dot), name.substr(dot + 1)};
}

// The members of one sample, of which the best is its record: an image, else the largest.
class Group {
 public:
  explicit Group(Index& index) : index_(index) {}

  [[nodiscard]] bool take(const std::string& name, std::uint64_t offset, std::uint64_t bytes) {
    const std::optional<Name> parts = split(name);
    if (!parts) return true;
    if (parts->key != key_ && !finish()) return false;
    key_ = std::string(parts->key);
    const Encoding encoding = encoding_of_name(parts->extension);
    const bool image = encoding != Encoding::raw;
    if (open_ && (image_ || (!image && bytes <= bytes_))) return true;
    open_ = true;
    image_ = image;
    encoding_ = encoding;
    offset_ = offset;
    bytes_ = bytes;
    return true;
  }
  [[nodiscard]] bool finish() {
    const bool room = !open_ || index_.add(offset_, bytes_, encoding_);
    open_ = image_ = false;
    return room;
  }

 private:
  Index& index_;
  std::string key_{};
  bool open_ = false, image_ = false;
  Encoding encoding_ = Encoding::raw;
  std::uint64_t offset_ = 0, bytes_ = 0;
};

// Long names and pax headers; false when the header is of another kind.
Part<bool> read_extension(SourceFile& file, const Header& header, std::uint64_t data,
                          Extension& extension) {
  if (header.type != 'L' && header.type != 'x') return header.type == 'K' || header.type == 'g';
  const Part<std::string> text = file.text(data, header.size, kLongestHeader);
  if (!text) return Broken(text.error());
  if (header.type == 'L') {
    extension.path = text->substr(0, text->find('\0'));
    return true;
  }
  const Part<void> pax = read_pax(*text, data, extension);
  if (!pax) return Broken(pax.error());
  return true;
}

bool is_zero(std::span<const unsigned char> block) {
  return std::all_of(block.begin(), block.end(), [](unsigned char byte) { return byte == 0; });
}

bool is_data(char type) {
  return type == '0' || type == '\0' || type == '7';
}

class Walk {
 public:
  Walk(SourceFile& file, Index& index) : file_(file), group_(index) {}

  Part<void> run() {
    int zeros = 0;
    while (!done_ && zeros < 2 && at_ < file_.size()) {
      const auto block = file_.at(at_, kBlock);
      if (!block) return Broken("is truncated: " + block.error());
      if (is_zero(*block)) {
        ++zeros;
        at_ += kBlock;
        continue;
      }
      zeros = 0;
      const Part<Header> header = header_from(*block, at_);
      if (!header) return Broken(header.error());
      if (Part<void> taken = member(*header); !taken) return taken;
    }
    if (at_ > file_.size()) {
      return broken_at(file_.size(), "is truncated: it ends in the padding of a member");
    }
    // After a break the sample that it cut is left out.
    done_ = !group_.finish() || done_;
    return {};
  }

 private:
  Part<void> member(const Header& header) {
    const std::uint64_t data = at_ + kBlock;
    const bool extension =
        header.type == 'L' || header.type == 'K' || header.type == 'x' || header.type == 'g';
    const bool has_data = is_data(header.type);
    if (header.type == 'S' || (has_data && pending_.sparse)) {
      return broken_at(at_, fmt::format("has a sparse member ({})", header.name));
    }
    std::uint64_t size = extension || has_data ? header.size : 0;
    if (has_data && pending_.size) size = *pending_.size;
    if (!file_.holds(data, size)) {
      return broken_at(at_,
                       fmt::format("is truncated: member {} of {} bytes goes past the end ({})",
                                   pending_.path.value_or(header.name), size, file_.size()));
    }
    const Part<bool> read = read_extension(file_, header, data, pending_);
    if (!read) return Broken(read.error());
    if (!*read) {
      const std::string name = pending_.path.value_or(header.name);
      if (has_data) done_ = !group_.take(name, data, size);
      pending_ = {};
    }
    // Within the file, so that rounding up cannot overflow.
    at_ = data + (size + kBlock - 1) / kBlock * kBlock;
    return {};
  }

  SourceFile& file_;
  Group group_;
  Extension pending_{};
  std::uint64_t at_ = 0;
  bool done_ = false;
};

}  // namespace

Part<void> index_tar(SourceFile& file, Index& index) {
  if (file.size() < kBlock) return broken_at(0, "is too short for a tar archive");
  return Walk(file, index).run();
}

}  // namespace steelyard::rehearse
