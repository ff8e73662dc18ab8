#include "rehearse/image/huffman_scan.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace steelyard::rehearse {
namespace {

// Both parts of the program see through it, those for processors with BMI2 and the others.
#define STEELYARD_INLINE inline __attribute__((always_inline))

constexpr unsigned kWhole = 64, kIrregular = 65;

// Where the coefficients of a scan lie in a block (T.81, figure A.6).
constexpr std::array<std::uint8_t, kWhole> kPlaces = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

constexpr std::uint8_t kMarker = 0xFF, kStuffed = 0x00, kFirstRestart = 0xD0;

bool same(const JHUFF_TBL& a, const JHUFF_TBL& b) {
  return std::equal(std::begin(a.bits), std::end(a.bits), std::begin(b.bits)) &&
         std::equal(std::begin(a.huffval), std::end(a.huffval), std::begin(b.huffval));
}

}  // namespace

template <class Built>
bool HuffmanScan::Known<Built>::build(const JHUFF_TBL* from) {
  if (from == nullptr) return false;
  if (built && same(of, *from)) return true;
  built = table.build(*from);
  of = *from;
  return built;
}

// memchr looks at vectors of bytes; what lies between two of 0xFF is then taken without a look.
const std::uint8_t* HuffmanScan::clear_from(const std::uint8_t* at) const {
  const auto left = static_cast<std::size_t>(end_ - at);
  const void* found = left > 0 ? std::memchr(at, kMarker, left) : nullptr;
  return (found != nullptr ? static_cast<const std::uint8_t*>(found) : end_) - 8;
}

HuffmanScan::Bits HuffmanScan::bits_from(const std::uint8_t* at) {
  made_up_ = 0;
  Bits bits{.at = at, .clear = clear_from(at)};
  return refill_by_bytes(bits);
}

// At least 56 bits are held afterwards: two coefficients, or a difference and a coefficient.
STEELYARD_INLINE void HuffmanScan::refill(Bits& bits) {
  if (bits.at > bits.clear) [[unlikely]] {
    bits = refill_by_bytes(bits);
    return;
  }
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, bits.at, 8);
  if constexpr (std::endian::native == std::endian::little) bytes = __builtin_bswap64(bytes);
  bits.window |= bytes >> bits.held;
  bits.at += (63 - bits.held) >> 3U;
  bits.held |= 56U;
}

__attribute__((noinline)) HuffmanScan::Bits HuffmanScan::refill_by_bytes(Bits bits) {
  for (; bits.held < 56; bits.held += 8) {
    const auto left = end_ - bits.at;
    const bool marker = left > 0 && *bits.at == kMarker;
    if (left == 0 || (marker && (left == 1 || bits.at[1] == kMarker))) cut_ = true;
    if (cut_ || (marker && bits.at[1] != kStuffed)) {
      made_up_ += 8;
      continue;
    }
    bits.window |= std::uint64_t{*bits.at} << (56U - bits.held);
    bits.at += marker ? 2 : 1;
    if (marker) bits.clear = clear_from(bits.at);
  }
  return bits;
}

STEELYARD_INLINE void HuffmanScan::Bits::drop(unsigned count) {
  window <<= count & 63U;
  held -= count;
}

bool HuffmanScan::start(jpeg_decompress_struct& info) {
  if (info.progressive_mode != 0 || info.arith_code != 0 || jpeg_has_multiple_scans(&info) != 0 ||
      info.data_precision != 8 || info.blocks_in_MCU > D_MAX_BLOCKS_IN_MCU) {
    return false;
  }
  for (int c = 0; c < info.comps_in_scan; ++c) {
    const jpeg_component_info& component = *info.cur_comp_info[c];
    const auto dc = std::size_t(component.dc_tbl_no), ac = std::size_t(component.ac_tbl_no);
    if (dc >= NUM_HUFF_TBLS || ac >= NUM_HUFF_TBLS) return false;
    if (!differences_[dc].build(info.dc_huff_tbl_ptrs[dc]) ||
        !coefficients_[ac].build(info.ac_huff_tbl_ptrs[ac])) {
      return false;
    }
  }
  parts_used_ = info.blocks_in_MCU;
  for (int i = 0; i < parts_used_; ++i) {
    const int c = info.MCU_membership[i];
    const jpeg_component_info& component = *info.cur_comp_info[c];
    parts_[std::size_t(i)] = {
        .difference = &differences_[std::size_t(component.dc_tbl_no)].table,
        .coefficients = &coefficients_[std::size_t(component.ac_tbl_no)].table,
        .component = c};
  }
  last_.fill(0);
  end_ = info.src->next_input_byte + info.src->bytes_in_buffer;
  cut_ = false;
  bits_ = bits_from(info.src->next_input_byte);
  interval_ = to_go_ = info.restart_interval;
  restarts_ = 0;
  return true;
}

bool HuffmanScan::restart() {
  if (bits_.held >= made_up_ + 8 || end_ - bits_.at < 2) return false;
  if (bits_.at[0] != kMarker || bits_.at[1] != kFirstRestart + restarts_ % 8) return false;
  bits_ = bits_from(bits_.at + 2);
  last_.fill(0);
  to_go_ = interval_;
  ++restarts_;
  return true;
}

// One coefficient, or the end of the block, by its code alone. -> the next coefficient.
STEELYARD_INLINE unsigned HuffmanScan::read_apart(const CodeTable& codes, unsigned next, Bits& bits,
                                                  JCOEF* block) {
  refill(bits);
  const Code code = codes.find(bits.window);
  const int value = code.value(bits.window);
  bits.drop(code.bits());
  if (code.zeros() == Code::kEndOfBlock) return kWhole;
  const unsigned place = next + code.zeros();
  if (code.none() || place >= kWhole) return kIrregular;
  if (block != nullptr) block[kPlaces[place]] = static_cast<JCOEF>(value);
  return place + 1;
}

// Most of the time of a sample goes by here, waiting: for the bits a look-up takes, for the next
// look-up. So a look-up does not wait for the bits that are added meanwhile (it looks at the
// highest ones), and two values are stored whether there is a second one or not (the first then
// comes over it), as a wrong guess of the processor would cost more.
STEELYARD_INLINE unsigned HuffmanScan::read_coefficients(const PairTable& table, Bits& bits,
                                                         JCOEF* block) {
  constexpr unsigned kPerRefill = 56 / PairTable::kMostBits;
  static_assert(56 - kPerRefill * PairTable::kMostBits >= PairTable::kBits);
  unsigned next = 1;
  for (;;) {
#pragma GCC unroll 2
    for (unsigned i = 0; i < kPerRefill; ++i) {
      const std::size_t place = PairTable::place(bits.window);
      if (i == 0) refill(bits);
      const PairTable::Entry& entry = table.at(place);
      const unsigned first = next + entry.first_step, second = first + entry.second_step;
      if (second >= kWhole) [[unlikely]] {
        const bool ends = entry.second_step == PairTable::kEnd && first < kWhole;
        if (!ends && second != kWhole) {
          next = read_apart(table.codes(), next, bits, block);
          if (next >= kWhole) return next;
          break;
        }
        if (block != nullptr && !ends) block[kPlaces[second - 1]] = entry.second_value;
        if (block != nullptr && first > next) {
          block[kPlaces[first - 1]] = static_cast<JCOEF>(entry.first_value(bits.window));
        }
        bits.drop(table.bits(place));
        return kWhole;
      }
      if (block != nullptr) {
        block[kPlaces[second - 1]] = entry.second_value;
        block[kPlaces[first - 1]] = static_cast<JCOEF>(entry.first_value(bits.window));
      }
      bits.drop(table.bits(place));
      next = second;
    }
  }
}

STEELYARD_INLINE bool HuffmanScan::read_block(const Part& part, Bits& bits, JCOEF* block) {
  Code code = part.difference->look(bits.window);
  refill(bits);
  if (code.none()) code = part.difference->find_long(bits.window);
  if (code.none()) return false;
  const auto value = static_cast<unsigned>(code.value(bits.window));
  int& last = last_[std::size_t(part.component)];
  last = static_cast<int>(static_cast<unsigned>(last) + value);
  if (block != nullptr) block[0] = static_cast<JCOEF>(last);
  bits.drop(code.bits());
  return read_coefficients(*part.coefficients, bits, block) == kWhole;
}

template <bool kKeep>
STEELYARD_INLINE bool HuffmanScan::read_unit(JBLOCKROW* blocks) {
  Bits bits = bits_;
  for (int i = 0; i < parts_used_; ++i) {
    JCOEF* block = kKeep ? &(*blocks[i])[0] : nullptr;
    if (!read_block(parts_[std::size_t(i)], bits, block)) return false;
  }
  bits_ = bits;
  return bits.held >= made_up_ && !cut_;
}

#if defined(__x86_64__)
__attribute__((target("bmi2"))) bool HuffmanScan::read_unit_bmi2(JBLOCKROW* blocks) {
  return read_unit<true>(blocks);
}
__attribute__((target("bmi2"))) bool HuffmanScan::skip_unit_bmi2() {
  return read_unit<false>(nullptr);
}
#endif

bool HuffmanScan::next(JBLOCKROW* blocks) {
  if (interval_ > 0) {
    if (to_go_ == 0 && !restart()) return false;
    --to_go_;
  }
#if defined(__x86_64__)
  static const bool has_bmi2 = __builtin_cpu_supports("bmi2") != 0;
  if (has_bmi2) return blocks != nullptr ? read_unit_bmi2(blocks) : skip_unit_bmi2();
#endif
  return blocks != nullptr ? read_unit<true>(blocks) : read_unit<false>(nullptr);
}

}  // namespace steelyard::rehearse
