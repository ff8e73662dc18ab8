#include "rehearse/image/code_table.h"

#include <algorithm>

namespace steelyard::rehearse {
namespace {

// Of eight bits a sample (T.81, tables F.1 and F.2).
constexpr unsigned kLongestDifference = 11, kLongestCoefficient = 10;
constexpr unsigned kSixteenZeros = 15;  // of a code without a value; the others end the block

Code code_of(unsigned length, unsigned symbol, CodeTable::Kind kind) {
  if (kind == CodeTable::Kind::difference) {
    return symbol <= kLongestDifference ? Code(length, symbol, 0) : Code();
  }
  const unsigned size = symbol & 15U, zeros = symbol >> 4U;
  if (size > kLongestCoefficient) return {};
  return {length, size, size == 0 && zeros != kSixteenZeros ? Code::kEndOfBlock : zeros};
}

std::uint8_t byte(unsigned value) {
  return static_cast<std::uint8_t>(value);
}

}  // namespace

bool CodeTable::build(const JHUFF_TBL& from, Kind kind) {
  short_.fill({});
  std::uint32_t next = 0;  // code, as kLongest bits
  int used = 0;
  for (int length = 1; length <= kLongest; ++length) {
    const std::uint32_t step = 1U << (kLongest - length);
    first_[std::size_t(length)] = used - static_cast<std::int32_t>(next / step);
    for (int i = 0; i < from.bits[length]; ++i, ++used, next += step) {
      if (used >= 256 || next >= 1U << kLongest) return false;
      const Code code = code_of(unsigned(length), from.huffval[used], kind);
      if (code.none()) return false;
      codes_[std::size_t(used)] = code;
      if (length > kShort) continue;
      constexpr int kCut = kLongest - kShort;
      std::fill_n(short_.begin() + (next >> kCut), step >> kCut, code);
    }
    end_[std::size_t(length)] = next;
  }
  return true;
}

Code CodeTable::find_long(std::uint64_t next) const {
  const auto code = static_cast<std::uint32_t>(next >> (64 - kLongest));
  for (int length = kShort + 1; length <= kLongest; ++length) {
    if (code >= end_[std::size_t(length)]) continue;
    const auto place = static_cast<std::int32_t>(code >> (kLongest - length));
    return codes_[std::size_t(first_[std::size_t(length)] + place)];
  }
  return {};
}

bool PairTable::build(const JHUFF_TBL& from) {
  if (!codes_.build(from, CodeTable::Kind::coefficient)) return false;
  for (std::size_t place = 0; place < entries_.size(); ++place) enter(place);
  return true;
}

void PairTable::enter(std::size_t place) {
  const std::uint64_t next = std::uint64_t{place} << (64 - kBits);
  const Code one = codes_.find(next);
  Entry& entry = entries_[place];
  entry = {};
  bits_[place] = byte(one.bits());
  if (one.zeros() == Code::kEndOfBlock && one.length() <= kBits) {
    entry.second_step = kEnd;
    return;
  }
  // Sixteen zeros have no value, which first_value() cannot give; they are rare.
  if (one.size() == 0 || one.length() > kBits) {
    entry.second_step = kApart;
    return;
  }
  entry.first_step = byte(one.zeros() + 1);
  entry.length = byte(one.length());
  entry.rest = byte(64 - one.size());
  entry.if_negative = static_cast<std::int16_t>(1 - (1 << one.size()));
  if (one.bits() >= kBits) return;

  const std::uint64_t behind = next << one.bits();
  const Code two = codes_.find(behind);
  const bool ends = two.zeros() == Code::kEndOfBlock;
  if (two.none() || one.bits() + two.bits() > kBits || (two.size() == 0 && !ends)) return;
  // At least three bits are the first one's, so that a second value has at most seven.
  bits_[place] = byte(one.bits() + two.bits());
  entry.second_step = ends ? kEnd : byte(two.zeros() + 1);
  entry.second_value = static_cast<std::int8_t>(two.value(behind));
}

}  // namespace steelyard::rehearse
