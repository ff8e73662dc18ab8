// A file that appears under its name only when it is whole: written as ".NAME.partial" beside it
// (which readers of data sets leave out), then renamed. Dropped without `finish`, it is gone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace steelyard::rehearse {

using ByteSpan = std::span<const unsigned char>;

class AtomicFile {
 public:
  // Errors of all members: unreadable with what the system says; a full disk says so by name.
  [[nodiscard]] static Result<AtomicFile> create(std::filesystem::path path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  [[nodiscard]] Result<void> write(ByteSpan bytes);
  [[nodiscard]] Result<void> write(std::string_view text);
  // Over what was written before.
  [[nodiscard]] Result<void> patch(std::uint64_t offset, ByteSpan bytes);
  [[nodiscard]] Result<void> finish();
  [[nodiscard]] std::uint64_t size() const { return size_; }

 private:
  AtomicFile(int descriptor, std::filesystem::path path, std::filesystem::path partial);
  [[nodiscard]] Result<void> flush();
  [[nodiscard]] Result<void> put(std::uint64_t offset, ByteSpan bytes) const;

  int descriptor_ = -1;
  std::filesystem::path path_, partial_;
  std::vector<unsigned char> buffer_{};  // the last bytes, not yet in the file
  std::uint64_t size_ = 0;
};

// Writes all bytes at an offset; errno names the fault in the Error ("no space left on the disk").
[[nodiscard]] Result<void> write_all(int descriptor, std::uint64_t offset, ByteSpan bytes,
                                     const std::filesystem::path& path);
// The error for a system call on a file.
[[nodiscard]] Error system_error(const std::filesystem::path& path, int number, const char* doing);

}  // namespace steelyard::rehearse
