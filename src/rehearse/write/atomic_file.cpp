#include "rehearse/write/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace steelyard::rehearse {
namespace {

constexpr std::size_t kBuffer = 1 << 20;

}  // namespace

Error system_error(const std::filesystem::path& path, int number, const char* doing) {
  Error error{.code = ErrorCode::unreadable,
              .subject = path.string(),
              .found = fmt::format("{}: {}", doing, std::strerror(number)),
              .accepted = "a place that can be written"};
  if (number == ENOSPC || number == EDQUOT) {
    error.found = number == ENOSPC ? "no space left on the disk" : "the disk quota is used up";
    error.accepted = "a disk with room for all of it";
    error.hint = "what was not finished has been removed; ask for less (--size)";
  }
  return error;
}

Result<void> write_all(int descriptor, std::uint64_t offset, ByteSpan bytes,
                       const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t put =
        ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail(system_error(path, errno, "cannot be written"));
    offset += static_cast<std::uint64_t>(put);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

AtomicFile::AtomicFile(int descriptor, std::filesystem::path path, std::filesystem::path partial)
    : descriptor_(descriptor), path_(std::move(path)), partial_(std::move(partial)) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      partial_(std::move(other.partial_)),
      buffer_(std::move(other.buffer_)),
      size_(other.size_) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(partial_.c_str());
}

Result<AtomicFile> AtomicFile::create(std::filesystem::path path) {
  const std::filesystem::path partial =
      path.parent_path() / ("." + path.filename().string() + ".partial");
  const int descriptor = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) return fail(system_error(partial, errno, "cannot be created"));
  return AtomicFile(descriptor, std::move(path), partial);
}

Result<void> AtomicFile::put(std::uint64_t offset, ByteSpan bytes) const {
  return write_all(descriptor_, offset, bytes, path_);
}

Result<void> AtomicFile::flush() {
  if (buffer_.empty()) return {};
  STEELYARD_CHECK(put(size_ - buffer_.size(), buffer_));
  buffer_.clear();
  return {};
}

Result<void> AtomicFile::write(ByteSpan bytes) {
  if (buffer_.size() + bytes.size() > kBuffer) STEELYARD_CHECK(flush());
  if (bytes.size() >= kBuffer) {
    STEELYARD_CHECK(put(size_, bytes));
  } else {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  size_ += bytes.size();
  return {};
}

Result<void> AtomicFile::write(std::string_view text) {
  return write(ByteSpan(reinterpret_cast<const unsigned char*>(text.data()), text.size()));
}

Result<void> AtomicFile::patch(std::uint64_t offset, ByteSpan bytes) {
  STEELYARD_CHECK(flush());
  return put(offset, bytes);
}

Result<void> AtomicFile::finish() {
  STEELYARD_CHECK(flush());
  // Some file systems tell of a full disk only here.
  const int closed = ::close(std::exchange(descriptor_, -1));
  const int number = errno;
  if (closed != 0) {
    ::unlink(partial_.c_str());
    return fail(system_error(path_, number, "cannot be written"));
  }
  if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    const int reason = errno;
    ::unlink(partial_.c_str());
    return fail(system_error(path_, reason, "cannot be renamed to"));
  }
  return {};
}

}  // namespace steelyard::rehearse
