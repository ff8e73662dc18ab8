// The wire format of protocol buffers, read from a file without holding it: a cursor walks the
// fields of one message, and what nobody wants is passed over by its length alone.
//
// Source: protobuf.dev, "Encoding". Groups (wire types 3 and 4) are refused; no format here has
// them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace steelyard::codec {

// Bytes of a file by their place. Holds one small window of it in memory.
class WireFile {
 public:
  [[nodiscard]] static Result<WireFile> open(const std::filesystem::path& file);
  WireFile(WireFile&& other) noexcept;
  WireFile& operator=(WireFile&&) = delete;
  WireFile(const WireFile&) = delete;
  WireFile& operator=(const WireFile&) = delete;
  ~WireFile();

  [[nodiscard]] std::uint64_t size() const { return size_; }
  // The byte at `at` < size(); -1 when the file cannot be read any more.
  [[nodiscard]] int byte(std::uint64_t at);
  // Appends [at, at + count) to `into`; false when the file ends before.
  [[nodiscard]] bool read(std::uint64_t at, std::uint64_t count, std::string& into);

 private:
  WireFile(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {}

  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::uint64_t window_at_ = 0;
  std::string window_;
};

struct WireField {
  std::uint32_t number = 0;
  std::uint32_t type = 0;            // 0 varint, 1 eight bytes, 2 with a length, 5 four bytes
  std::uint64_t value = 0;           // of types 0, 1 and 5
  std::uint64_t begin = 0, end = 0;  // of type 2: its content
  [[nodiscard]] std::uint64_t length() const { return end - begin; }
  [[nodiscard]] std::int64_t whole() const { return static_cast<std::int64_t>(value); }
};

// What all cursors of one file share: the file, and the first thing that was wrong.
struct WireState {
  explicit WireState(WireFile& of) : file(of) {}

  WireFile& file;
  std::string trouble;     // what was found; empty while all is well
  std::uint64_t at = 0;    // its place
  std::uint64_t read = 0;  // bytes looked at so far

  void refuse(std::uint64_t where, std::string found);
  [[nodiscard]] bool well() const { return trouble.empty(); }
};

class WireCursor {
 public:
  WireCursor(WireState& state, std::uint64_t begin, std::uint64_t end)
      : state_(state), at_(begin), end_(end) {}
  WireCursor(WireState& state, const WireField& message)
      : WireCursor(state, message.begin, message.end) {}

  // The next field; nothing at the end, or once anything is wrong.
  [[nodiscard]] std::optional<WireField> next();
  // Of packed numbers.
  [[nodiscard]] bool done() const { return !state_.well() || at_ >= end_; }
  [[nodiscard]] std::uint64_t varint();
  [[nodiscard]] std::uint64_t fixed(int bytes);

 private:
  WireState& state_;
  std::uint64_t at_, end_;
};

}  // namespace steelyard::codec
