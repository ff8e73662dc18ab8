// What a zlib stream holds (RFC 1950 and 1951), for recorded files; throws where it is broken.
#pragma once

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard::testing {

class Inflated {
 public:
  explicit Inflated(std::string_view stream) : stream_(stream) {
    constexpr std::size_t kHeader = 16;  // bits
    (void)bits(kHeader);
    for (bool last = false; !last;) {
      last = bits(1) == 1;
      switch (bits(2)) {
        case 0: stored(); break;
        case 1: fixed(); break;
        case 2: dynamic(); break;
        default: throw std::runtime_error("inflate: a block of no known kind");
      }
    }
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  static constexpr std::size_t kLongest = 15;  // bits of a code

  // Codes by their lengths: how many there are of each, and their symbols in order.
  struct Codes {
    std::array<int, kLongest + 1> count{};
    std::vector<int> symbols;

    explicit Codes(const std::vector<std::uint32_t>& lengths) {
      std::array<std::vector<int>, kLongest + 1> of;
      for (std::size_t i = 0; i < lengths.size(); ++i) {
        if (lengths[i] > 0) of.at(lengths[i]).push_back(static_cast<int>(i));
      }
      for (std::size_t length = 1; length <= kLongest; ++length) {
        count.at(length) = static_cast<int>(of.at(length).size());
        symbols.insert(symbols.end(), of.at(length).begin(), of.at(length).end());
      }
    }
  };

  std::uint32_t bits(std::size_t count) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < count; ++i, ++at_) {
      if (at_ / 8 >= stream_.size()) throw std::runtime_error("inflate: the stream ends early");
      const auto byte = static_cast<unsigned char>(stream_[at_ / 8]);
      value |= (std::uint32_t{byte} >> at_ % 8 & 1U) << i;
    }
    return value;
  }

  std::uint32_t symbol(const Codes& codes) {
    int code = 0, first = 0, index = 0;
    for (std::size_t length = 1; length <= kLongest; ++length) {
      code |= static_cast<int>(bits(1));
      const int count = codes.count.at(length);
      if (code - first < count) {
        return static_cast<std::uint32_t>(
            codes.symbols.at(static_cast<std::size_t>(index + code - first)));
      }
      index += count;
      first = (first + count) * 2;
      code *= 2;
    }
    throw std::runtime_error("inflate: no such code");
  }

  void stored() {
    at_ = (at_ + 7) / 8 * 8;
    const std::uint32_t length = bits(16);
    (void)bits(16);  // its complement
    for (std::uint32_t i = 0; i < length; ++i) text_ += static_cast<char>(bits(8));
  }

  void fixed() {
    std::vector<std::uint32_t> lengths(288, 8);
    for (std::size_t i = 144; i < 256; ++i) lengths[i] = 9;
    for (std::size_t i = 256; i < 280; ++i) lengths[i] = 7;
    coded(Codes(lengths), Codes(std::vector<std::uint32_t>(30, 5)));
  }

  void dynamic() {
    static constexpr std::array<std::size_t, 19> kOrder = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                           11, 4,  12, 3, 13, 2, 14, 1, 15};
    const std::size_t literals = bits(5) + 257, distances = bits(5) + 1, given = bits(4) + 4;
    std::vector<std::uint32_t> lengths(kOrder.size());
    for (std::size_t i = 0; i < given; ++i) lengths[kOrder.at(i)] = bits(3);
    const Codes codes(lengths);
    lengths.clear();
    while (lengths.size() < literals + distances) {
      const std::uint32_t kind = symbol(codes);
      if (kind < 16) {
        lengths.push_back(kind);
      } else if (kind == 16) {
        const std::uint32_t last = lengths.at(lengths.size() - 1);
        lengths.insert(lengths.end(), bits(2) + 3, last);
      } else {
        lengths.insert(lengths.end(), kind == 17 ? bits(3) + 3 : bits(7) + 11, 0U);
      }
    }
    const auto middle = lengths.begin() + static_cast<std::ptrdiff_t>(literals);
    coded(Codes({lengths.begin(), middle}), Codes({middle, lengths.end()}));
  }

  // Literals, and repeats of what came before: bases and further bits as in RFC 1951, 3.2.5.
  void coded(const Codes& literals, const Codes& distances) {
    constexpr std::uint32_t kEnd = 256;
    for (;;) {
      const std::uint32_t next = symbol(literals);
      if (next == kEnd) return;
      if (next < kEnd) {
        text_ += static_cast<char>(next);
        continue;
      }
      const std::uint32_t kind = next - kEnd - 1;
      std::uint32_t length = 258;
      if (kind < 8) length = kind + 3;
      if (kind >= 8 && kind < 28) {
        const std::uint32_t extra = (kind - 4) / 4;
        length = ((4 + kind % 4) << extra) + 3 + bits(extra);
      }
      const std::uint32_t far = symbol(distances);
      std::uint32_t back = far + 1;
      if (far >= 4) {
        const std::uint32_t extra = far / 2 - 1;
        back = ((2 + far % 2) << extra) + 1 + bits(extra);
      }
      for (; length > 0; --length) text_ += text_.at(text_.size() - back);
    }
  }

  std::string_view stream_;
  std::size_t at_ = 0;  // bits
  std::string text_;
};

}  // namespace steelyard::testing
