#include "codec/wire.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace steelyard::codec {

namespace {

constexpr std::uint64_t kWindow = std::uint64_t{1} << 16;

Error unreadable(const std::filesystem::path& file, std::string found) {
  return {.code = ErrorCode::unreadable,
          .subject = "file",
          .found = std::move(found),
          .accepted = "the path of a readable regular file",
          .file = file.string()};
}

}  // namespace

Result<WireFile> WireFile::open(const std::filesystem::path& file) {
  // Not blocking: a pipe without a writer would wait for ever.
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return fail(unreadable(file, std::generic_category().message(errno)));
  }
  WireFile opened(descriptor, 0);
  struct ::stat facts {};
  if (::fstat(descriptor, &facts) != 0) {
    return fail(unreadable(file, std::generic_category().message(errno)));
  }
  if (!S_ISREG(facts.st_mode)) return fail(unreadable(file, "no regular file"));
  if (facts.st_size == 0) return fail(unreadable(file, "an empty file"));
  opened.size_ = static_cast<std::uint64_t>(facts.st_size);
  return opened;
}

WireFile::WireFile(WireFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_),
      window_at_(other.window_at_),
      window_(std::move(other.window_)) {}

WireFile::~WireFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

int WireFile::byte(std::uint64_t at) {
  if (at < window_at_ || at - window_at_ >= window_.size()) {
    window_.clear();
    window_at_ = at;
    if (at >= size_ || !read(at, std::min(kWindow, size_ - at), window_)) {
      window_.clear();
      return -1;
    }
  }
  return static_cast<unsigned char>(window_[static_cast<std::size_t>(at - window_at_)]);
}

bool WireFile::read(std::uint64_t at, std::uint64_t count, std::string& into) {
  if (at > size_ || count > size_ - at) return false;
  const std::size_t before = into.size();
  into.resize(before + static_cast<std::size_t>(count));
  std::size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(descriptor_, into.data() + before + done, static_cast<std::size_t>(count) - done,
                static_cast<off_t>(at + done));
    if (got <= 0) {
      into.resize(before);
      return false;
    }
    done += static_cast<std::size_t>(got);
  }
  return true;
}

void WireState::refuse(std::uint64_t where, std::string found) {
  if (!trouble.empty()) return;
  trouble = std::move(found);
  at = where;
}

std::uint64_t WireCursor::varint() {
  std::uint64_t value = 0;
  const std::uint64_t start = at_;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (!state_.well()) return 0;
    if (at_ >= end_) {
      state_.refuse(start, "a number cut off by the end of what holds it");
      return 0;
    }
    const int byte = state_.file.byte(at_++);
    ++state_.read;
    if (byte < 0) {
      state_.refuse(start, "the end of the file inside a number");
      return 0;
    }
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  state_.refuse(start, "a number of more than ten bytes");
  return 0;
}

std::uint64_t WireCursor::fixed(int bytes) {
  if (!state_.well()) return 0;
  if (end_ - at_ < static_cast<std::uint64_t>(bytes)) {
    state_.refuse(at_, "a number cut off by the end of what holds it");
    at_ = end_;
    return 0;
  }
  std::uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) {
    const int byte = state_.file.byte(at_++);
    if (byte < 0) {
      state_.refuse(at_, "the end of the file inside a number");
      return 0;
    }
    value |= static_cast<std::uint64_t>(byte) << (8 * i);
  }
  state_.read += static_cast<std::uint64_t>(bytes);
  return value;
}

std::optional<WireField> WireCursor::next() {
  if (done()) return std::nullopt;
  const std::uint64_t start = at_;
  const std::uint64_t tag = varint();
  if (!state_.well()) return std::nullopt;
  WireField field;
  field.type = static_cast<std::uint32_t>(tag & 7);
  if ((tag >> 3) == 0 || (tag >> 3) > 0x1fffffff) {
    state_.refuse(start, fmt::format("field number {}", tag >> 3));
    return std::nullopt;
  }
  field.number = static_cast<std::uint32_t>(tag >> 3);
  switch (field.type) {
    case 0: field.value = varint(); break;
    case 1: field.value = fixed(8); break;
    case 5: field.value = fixed(4); break;
    case 2: {
      const std::uint64_t length = varint();
      if (!state_.well()) break;
      if (length > end_ - at_) {
        state_.refuse(start,
                      fmt::format("a field of {} bytes where {} are left", length, end_ - at_));
        break;
      }
      field.begin = at_;
      field.end = at_ + length;
      at_ += length;
      break;
    }
    default: state_.refuse(start, fmt::format("wire type {}", field.type));
  }
  if (!state_.well()) return std::nullopt;
  return field;
}

}  // namespace steelyard::codec
