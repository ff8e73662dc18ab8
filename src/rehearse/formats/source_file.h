// A file read here and there for its headers: small windows, never past its end.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace steelyard::rehearse {

// What was read, or what is wrong with the file, in words with the offset ("... at offset 512").
template <class T>
using Part = std::expected<T, std::string>;
using Broken = std::unexpected<std::string>;

class SourceFile {
 public:
  static constexpr std::size_t kWindow = 64 * 1024;

  [[nodiscard]] static Part<SourceFile> open(const std::filesystem::path& path);
  SourceFile(SourceFile&& other) noexcept;
  SourceFile& operator=(SourceFile&&) = delete;
  ~SourceFile();

  [[nodiscard]] std::uint64_t size() const { return size_; }
  // Whether `bytes` from `offset` on lie in the file; no sum overflows.
  [[nodiscard]] bool holds(std::uint64_t offset, std::uint64_t bytes) const {
    return offset <= size_ && bytes <= size_ - offset;
  }
  // At most kWindow bytes, valid until the next call. Broken: past the end, or the read failed.
  [[nodiscard]] Part<std::span<const unsigned char>> at(std::uint64_t offset, std::size_t bytes);
  // Longer pieces, up to `limit`.
  [[nodiscard]] Part<std::string> text(std::uint64_t offset, std::uint64_t bytes,
                                       std::uint64_t limit);

 private:
  SourceFile(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {}
  [[nodiscard]] Part<void> fill(std::uint64_t offset, unsigned char* to, std::size_t bytes) const;

  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::vector<unsigned char> window_{};
  std::uint64_t window_offset_ = 0;
};

// Little-endian whole numbers out of bytes that the caller has.
[[nodiscard]] std::uint16_t le16(const unsigned char* bytes);
[[nodiscard]] std::uint32_t le32(const unsigned char* bytes);
[[nodiscard]] std::uint64_t le64(const unsigned char* bytes);

// "found at offset N", the end of a Broken.
[[nodiscard]] Broken broken_at(std::uint64_t offset, const std::string& what);

}  // namespace steelyard::rehearse
