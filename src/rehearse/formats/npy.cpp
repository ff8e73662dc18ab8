// Arrays: .npy (numpy/lib/format.py: magic, version, header as the text of a Python dictionary),
// token files without a header (nanoGPT's train.bin: uint16) or with the one of llm.c
// (dev/data/data_common.py: 256 int32, of which the first three are magic, version, tokens), and
// raw files cut in records of one size.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <vector>

#include "rehearse/formats/index.h"

namespace steelyard::rehearse {
namespace {

struct Array {
  char kind = 'u';          // as NumPy's descr has it: u, i, f, b, c, S, U, V, M, m
  bool big_endian = false;  // of elements wider than a byte
  std::uint64_t width = 0;  // bytes per element
  bool fortran = false;
  std::vector<std::uint64_t> shape{};
  std::uint64_t data = 0;  // offset
};

// The text behind 'key': up to the next key, without blanks at its ends.
std::optional<std::string_view> value_of(std::string_view header, std::string_view key) {
  const std::size_t at = header.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view rest = header.substr(at + key.size());
  const std::size_t start = rest.find_first_not_of(" :");
  if (start == std::string_view::npos) return std::nullopt;
  return rest.substr(start);
}

bool read_descr(std::string_view text, Array& array) {
  if (text.size() < 4 || text.front() != '\'') return false;
  text.remove_prefix(1);
  const std::size_t quote = text.find('\'');
  if (quote == std::string_view::npos || quote < 3) return false;
  array.big_endian = text[0] == '>';
  if (std::string_view("<>|=").find(text[0]) == std::string_view::npos) return false;
  array.kind = text[1];
  if (std::string_view("uifbcSUVMm").find(array.kind) == std::string_view::npos) return false;
  const char* end = text.data() + quote;
  const auto [rest, error] = std::from_chars(text.data() + 2, end, array.width);
  // Dates go on: "<M8[ns]". The characters of U take four bytes each.
  const bool whole = rest == end || array.kind == 'M' || array.kind == 'm';
  if (error != std::errc{} || !whole || array.width > (1U << 30)) return false;
  if (array.kind == 'U') array.width *= 4;
  return array.width > 0;
}

bool read_shape(std::string_view text, Array& array) {
  const std::size_t close = text.find(')');
  if (text.empty() || text.front() != '(' || close == std::string_view::npos) return false;
  std::string_view inner = text.substr(1, close - 1);
  while (!inner.empty()) {
    const std::size_t start = inner.find_first_not_of(" ,");
    if (start == std::string_view::npos) break;
    inner.remove_prefix(start);
    std::uint64_t axis = 0;
    const auto [rest, error] = std::from_chars(inner.data(), inner.data() + inner.size(), axis);
    if (error != std::errc{} || array.shape.size() == 64) return false;
    array.shape.push_back(axis);
    inner.remove_prefix(static_cast<std::size_t>(rest - inner.data()));
    if (!inner.empty() && inner.front() != ',' && inner.front() != ' ') return false;
  }
  return true;
}

Part<Array> header_of(SourceFile& file) {
  const auto magic = file.at(0, 10);
  if (!magic) return Broken("is truncated: " + magic.error());
  if (std::string_view(reinterpret_cast<const char*>(magic->data()), 6) != "\x93NUMPY") {
    return broken_at(0, "is no .npy file");
  }
  const unsigned version = (*magic)[6];
  if (version < 1 || version > 3) {
    return broken_at(6,
                     fmt::format("has version {} of the .npy format (1 to 3 are known)", version));
  }
  std::uint64_t start = 10;
  std::uint64_t length = le16(&(*magic)[8]);
  if (version > 1) {
    const auto wide = file.at(8, 4);
    if (!wide) return Broken("is truncated: " + wide.error());
    start = 12;
    length = le32(wide->data());
  }
  constexpr std::uint64_t kLongest = 64 * 1024;
  const Part<std::string> header = file.text(start, length, kLongest);
  if (!header) return Broken(header.error());
  Array array;
  array.data = start + length;
  const auto descr = value_of(*header, "'descr'");
  const auto order = value_of(*header, "'fortran_order'");
  const auto shape = value_of(*header, "'shape'");
  if (!descr || !read_descr(*descr, array)) {
    return broken_at(start, "has a type of elements that has no fixed size or is malformed");
  }
  if (!order || !shape || !read_shape(*shape, array)) {
    return broken_at(start, "has a malformed .npy header");
  }
  array.fortran = order->starts_with("True");
  if (!array.fortran && !order->starts_with("False")) {
    return broken_at(start, "has a malformed .npy header");
  }
  return array;
}

// Elements of axes [from, end), in bytes; nothing when that is more than a file can hold.
std::optional<std::uint64_t> bytes_of(const Array& array, std::size_t from) {
  std::uint64_t bytes = array.width;
  for (std::size_t i = from; i < array.shape.size(); ++i) {
    if (__builtin_mul_overflow(bytes, array.shape[i], &bytes)) return std::nullopt;
  }
  return bytes;
}

// Records of one size between two offsets; what is left at the end is no record.
Part<void> cut(Index& index, std::uint64_t begin, std::uint64_t end, std::uint64_t bytes,
               Encoding encoding, const char* what) {
  if (end - begin < bytes || bytes == 0) {
    return broken_at(begin, fmt::format("has {} bytes of data, less than one {} of {}", end - begin,
                                        what, bytes));
  }
  for (std::uint64_t at = begin; end - at >= bytes; at += bytes) {
    if (!index.add(at, bytes, encoding)) return {};
  }
  return {};
}

Part<void> cut_tokens(Index& index, std::uint64_t begin, std::uint64_t end, std::uint64_t tokens,
                      std::uint32_t width) {
  if (Part<void> same = index.set_token_bytes(width); !same) return same;
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(tokens, std::uint64_t{width}, &bytes)) {
    return Broken(fmt::format("cannot be cut in sequences of {} tokens", tokens));
  }
  return cut(index, begin, end, bytes, Encoding::tokens, "sequence");
}

}  // namespace

Part<void> index_npy(SourceFile& file, Index& index) {
  const Part<Array> array = header_of(file);
  if (!array) return Broken(array.error());
  const std::optional<std::uint64_t> total = bytes_of(*array, 0);
  if (!total || !file.holds(array->data, *total)) {
    return broken_at(array->data, fmt::format("is truncated: its shape needs {} bytes, it has {}",
                                              total ? fmt::to_string(*total) : "more than 2^64",
                                              file.size() - std::min(file.size(), array->data)));
  }
  const std::uint64_t end = array->data + *total;
  const bool integers = array->kind == 'u' || array->kind == 'i';
  const bool tokens = integers && !array->big_endian && array->width >= 2 && array->width <= 8;
  const std::size_t axes = array->shape.size();
  if (tokens && axes == 1) {
    return cut_tokens(index, array->data, end, index.options().sequence_tokens,
                      static_cast<std::uint32_t>(array->width));
  }
  if (array->fortran && axes > 1) {
    return Broken("is in Fortran order: its rows do not lie in one piece");
  }
  if (axes < 2) {
    const std::uint64_t fixed = index.options().record_bytes;
    return cut(index, array->data, end, fixed != 0 ? fixed : *total, Encoding::raw, "record");
  }
  const std::uint64_t row = bytes_of(*array, 1).value_or(0);
  if (tokens && axes == 2) {
    return cut_tokens(index, array->data, end, array->shape[1],
                      static_cast<std::uint32_t>(array->width));
  }
  return cut(index, array->data, end, row, Encoding::raw, "row");
}

Part<void> index_tokens(SourceFile& file, Index& index) {
  constexpr std::uint64_t kHeader = 1024;
  std::uint32_t width = index.options().token_bytes;
  std::uint64_t begin = 0;
  if (file.size() >= kHeader) {
    const auto head = file.at(0, 12);
    if (!head) return Broken(head.error());
    const std::uint32_t magic = le32(head->data());
    const std::uint32_t version = le32(&(*head)[4]);
    const bool gpt2 = magic == 20240520 && version == 1;
    const bool llama3 = magic == 20240801 && version == 7;
    if (gpt2 || llama3) {
      begin = kHeader;
      width = gpt2 ? 2 : 4;
      const std::uint64_t stated = std::uint64_t{le32(&(*head)[8])} * width;
      if (!file.holds(begin, stated)) {
        return broken_at(begin, fmt::format("is truncated: its header states {} bytes of tokens, "
                                            "it has {}",
                                            stated, file.size() - begin));
      }
    }
  }
  return cut_tokens(index, begin, file.size(), index.options().sequence_tokens, width);
}

Part<void> index_raw(SourceFile& file, Index& index) {
  const std::uint64_t fixed = index.options().record_bytes;
  if (file.size() == 0) return Broken("is empty");
  return cut(index, 0, file.size(), fixed != 0 ? fixed : file.size(), Encoding::raw, "record");
}

}  // namespace steelyard::rehearse
