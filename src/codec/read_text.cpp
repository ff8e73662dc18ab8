// Whole text files: refused by kind and size before a byte is read, by encoding after.
#include <fmt/format.h>

#include <cerrno>
#include <fstream>
#include <system_error>

#include "codec/codec.h"
#include "codec/utf8.h"

namespace steelyard::codec {
namespace {

namespace fs = std::filesystem;

Error unreadable(const fs::path& file, std::string found, std::string accepted) {
  return {.code = ErrorCode::unreadable,
          .subject = "file",
          .found = std::move(found),
          .accepted = std::move(accepted),
          .hint = {},
          .file = file.string(),
          .line = {}};
}

Error too_large(const fs::path& file, std::uintmax_t size) {
  return {.code = ErrorCode::too_large,
          .subject = "file",
          .found = size > 0 ? fmt::format("{} bytes", size) : std::string("more than the limit"),
          .accepted = fmt::format("at most {} bytes", kLargestFile.value()),
          .hint = "this is not a configuration file; was a weights or data file meant?",
          .file = file.string(),
          .line = {}};
}

Result<void> check_kind_and_size(const fs::path& file) {
  std::error_code failure;
  const fs::file_status status = fs::status(file, failure);
  if (status.type() == fs::file_type::not_found) {
    return fail(unreadable(file, "no such file", "the path of an existing text file"));
  }
  if (failure) return fail(unreadable(file, failure.message(), "a readable text file"));
  if (fs::is_directory(status)) {
    return fail(unreadable(file, "a directory", "the path of a text file"));
  }
  if (!fs::is_regular_file(status)) {
    return fail(unreadable(file, "a device, pipe or socket", "the path of a regular text file"));
  }
  const std::uintmax_t size = fs::file_size(file, failure);
  if (failure) return fail(unreadable(file, failure.message(), "a readable text file"));
  if (size > static_cast<std::uintmax_t>(kLargestFile.value())) return fail(too_large(file, size));
  if (size == 0) return fail(unreadable(file, "an empty file", "a text file with content"));
  return {};
}

// Reads at most one byte more than the limit: the file may grow after its size was asked for.
Result<std::string> read_bytes(const fs::path& file) {
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  if (!stream) {
    const std::string reason = errno != 0 ? std::generic_category().message(errno) : "unreadable";
    return fail(unreadable(file, reason, "a readable text file"));
  }
  std::string text;
  char block[1 << 16];
  while (stream.read(block, sizeof block) || stream.gcount() > 0) {
    text.append(block, static_cast<std::size_t>(stream.gcount()));
    if (static_cast<std::int64_t>(text.size()) > kLargestFile.value()) {
      return fail(too_large(file, 0));
    }
  }
  if (stream.bad()) return fail(unreadable(file, "a read error", "a readable text file"));
  return text;
}

}  // namespace

Result<std::string> read_text(const fs::path& file) {
  STEELYARD_CHECK(check_kind_and_size(file));
  STEELYARD_TRY(text, read_bytes(file));
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  if (const auto at = first_malformed_utf8(text)) {
    const auto byte = static_cast<unsigned char>(text[*at]);
    return fail({.code = ErrorCode::bad_input,
                 .subject = "encoding",
                 .found = fmt::format("byte 0x{:02X}, which is not valid UTF-8", byte),
                 .accepted = "text in UTF-8",
                 .hint = "convert it, for example with iconv -f LATIN1 -t UTF-8",
                 .file = file.string(),
                 .line = line_of(text, *at)});
  }
  return std::move(text);
}

}  // namespace steelyard::codec
