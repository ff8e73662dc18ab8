// Tables by which the Huffman codes of a sequential JPEG (ITU-T T.81, annexes C and F.2) are read.
// `next` is everywhere the next bits of the file, the first one highest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
// after <cstdio>, which it needs
#include <jpeglib.h>

namespace steelyard::rehearse {

// What stands behind a code: so many coefficients that are zero, then a value of so many bits.
class Code {
 public:
  static constexpr unsigned kEndOfBlock = 64;  // instead of zeros

  Code() = default;  // none
  Code(unsigned length, unsigned size, unsigned zeros)
      : packed_((length + size) | size << 8U | zeros << 16U) {}
  [[nodiscard]] bool none() const { return packed_ == 0; }
  [[nodiscard]] unsigned bits() const { return packed_ & 255U; }          // its own and the value's
  [[nodiscard]] unsigned size() const { return (packed_ >> 8U) & 255U; }  // the value's alone
  [[nodiscard]] unsigned length() const { return bits() - size(); }       // its own
  [[nodiscard]] unsigned zeros() const { return packed_ >> 16U; }
  [[nodiscard]] int value(std::uint64_t next) const;

 private:
  std::uint32_t packed_ = 0;  // one word, not bytes that are stored and loaded apart
};

class CodeTable {
 public:
  enum class Kind { difference, coefficient };  // DC, AC

  // False: codes that T.81 does not allow for eight bits a sample.
  [[nodiscard]] bool build(const JHUFF_TBL& from, Kind kind = Kind::difference);

  [[nodiscard]] Code look(std::uint64_t next) const { return short_[next >> (64 - kShort)]; }
  [[nodiscard]] Code find_long(std::uint64_t next) const;  // where look() gives none
  [[nodiscard]] Code find(std::uint64_t next) const {
    const Code code = look(next);
    return code.none() ? find_long(next) : code;
  }

 private:
  static constexpr int kShort = 10, kLongest = 16;

  std::array<Code, 1 << kShort> short_{};
  std::array<std::uint32_t, kLongest + 1> end_{};   // of the codes of a length, as 16 bits
  std::array<std::int32_t, kLongest + 1> first_{};  // their first in codes_, less their first code
  std::array<Code, 256> codes_{};                   // all, the shortest first
};

// One or two coefficients by the next kBits bits. A look-up is a few instructions of which each
// waits for the one before (the bits that are taken lie by themselves, as only they are waited
// for); at high quality a coefficient has some six bits, so that many look-ups give two.
class PairTable {
 public:
  static constexpr int kBits = 11;
  static constexpr unsigned kMostBits = kBits + 10;  // that a look-up takes
  static constexpr std::uint8_t kEnd = 64, kApart = 65;

  struct Entry {
    // How far the coefficients lie from the one before each. A second step of 0: there is only the
    // first. kEnd: the block ends there. kApart: not to be had by a look-up, find the code.
    std::uint8_t first_step = 0, second_step = 0;
    std::uint8_t length = 0;       // of the first one's code
    std::uint8_t rest = 0;         // 64 less the bits of the first value
    std::int8_t second_value = 0;  // the first one may have more bits than were looked at
    std::int16_t if_negative = 0;  // what is added to the first value then

    [[nodiscard]] int first_value(std::uint64_t next) const {
      const std::uint64_t behind = next << (length & 63U);
      const auto positive = static_cast<int>(static_cast<std::int64_t>(behind) >> 63);
      return static_cast<int>(behind >> (rest & 63U)) + (~positive & if_negative);
    }
  };

  [[nodiscard]] bool build(const JHUFF_TBL& from);

  static std::size_t place(std::uint64_t next) { return next >> (64 - kBits); }
  [[nodiscard]] const Entry& at(std::size_t place) const { return entries_[place]; }
  [[nodiscard]] unsigned bits(std::size_t place) const { return bits_[place]; }  // that are taken
  [[nodiscard]] const CodeTable& codes() const { return codes_; }

 private:
  void enter(std::size_t place);

  std::array<std::uint8_t, 1 << kBits> bits_{};
  std::array<Entry, 1 << kBits> entries_{};
  CodeTable codes_;
};

// T.81, F.2.2.1, EXTEND, without a branch: a value whose first bit is 1 is as it is, any other one
// is negative, and its bits turned over are how much.
inline int Code::value(std::uint64_t next) const {
  const std::uint64_t behind = next << length();
  const auto turned = static_cast<std::uint64_t>(~(static_cast<std::int64_t>(behind) >> 63));
  const std::uint64_t magnitude = ((behind ^ turned) >> 1U) >> (63U - size());
  return static_cast<int>((magnitude ^ turned) - turned);
}

}  // namespace steelyard::rehearse
