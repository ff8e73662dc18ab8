#include "rehearse/formats/source_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace steelyard::rehearse {

Part<SourceFile> SourceFile::open(const std::filesystem::path& path) {
  // Not blocking: a FIFO among the files must not hang us.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return Broken(fmt::format("cannot be opened: {}", std::strerror(errno)));
  struct stat status {};
  const bool known = ::fstat(descriptor, &status) == 0;
  SourceFile file(descriptor, known ? static_cast<std::uint64_t>(status.st_size) : 0);
  if (!known) return Broken(fmt::format("cannot be examined: {}", std::strerror(errno)));
  if (!S_ISREG(status.st_mode)) return Broken("is no regular file");
  return file;
}

SourceFile::SourceFile(SourceFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_),
      window_(std::move(other.window_)),
      window_offset_(other.window_offset_) {}

SourceFile::~SourceFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Part<void> SourceFile::fill(std::uint64_t offset, unsigned char* to, std::size_t bytes) const {
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, to, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return broken_at(offset, fmt::format("cannot be read: {}", std::strerror(errno)));
    if (got == 0) return broken_at(offset, "became shorter while it was read");
    offset += static_cast<std::uint64_t>(got);
    to += got;
    bytes -= static_cast<std::size_t>(got);
  }
  return {};
}

Part<std::span<const unsigned char>> SourceFile::at(std::uint64_t offset, std::size_t bytes) {
  if (!holds(offset, bytes) || bytes > kWindow) {
    return broken_at(offset, fmt::format("ends (at {}) within {} bytes that belong", size_, bytes));
  }
  const std::uint64_t window_end = window_offset_ + window_.size();
  if (offset < window_offset_ || offset + bytes > window_end) {
    // Headers that lie close together are read in large pieces, lone ones in small pieces.
    constexpr std::size_t kLone = 4 * 1024;
    const bool follows =
        !window_.empty() && offset >= window_offset_ && offset <= window_end + kLone;
    const std::size_t wanted = std::max(bytes, follows ? kWindow : kLone);
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(wanted, size_ - offset));
    window_.resize(length);
    window_offset_ = offset;
    if (Part<void> filled = fill(offset, window_.data(), length); !filled) {
      window_.clear();
      return Broken(filled.error());
    }
  }
  return std::span<const unsigned char>(window_).subspan(
      static_cast<std::size_t>(offset - window_offset_), bytes);
}

Part<std::string> SourceFile::text(std::uint64_t offset, std::uint64_t bytes, std::uint64_t limit) {
  if (bytes > limit) {
    return broken_at(offset,
                     fmt::format("states a header of {} bytes (at most {} taken)", bytes, limit));
  }
  if (!holds(offset, bytes)) {
    return broken_at(offset, fmt::format("ends (at {}) within {} bytes that belong", size_, bytes));
  }
  std::string text(static_cast<std::size_t>(bytes), '\0');
  Part<void> filled =
      fill(offset, reinterpret_cast<unsigned char*>(text.data()), static_cast<std::size_t>(bytes));
  if (!filled) return Broken(filled.error());
  return text;
}

std::uint16_t le16(const unsigned char* bytes) {
  return static_cast<std::uint16_t>(bytes[0] | (bytes[1] << 8));
}

std::uint32_t le32(const unsigned char* bytes) {
  return static_cast<std::uint32_t>(le16(bytes)) | static_cast<std::uint32_t>(le16(bytes + 2))
                                                       << 16;
}

std::uint64_t le64(const unsigned char* bytes) {
  return le32(bytes) | static_cast<std::uint64_t>(le32(bytes + 4)) << 32;
}

Broken broken_at(std::uint64_t offset, const std::string& what) {
  return Broken(fmt::format("{} at offset {}", what, offset));
}

}  // namespace steelyard::rehearse
