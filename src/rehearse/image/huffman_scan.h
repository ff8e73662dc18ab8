// The Huffman codes of a sequential JPEG's only scan, read in place of libjpeg-turbo's own reader.
//
// Why: of a picture of 500 x 375 pixels in 119 kB (ImageNet's kind) libjpeg-turbo takes three
// quarters of a sample's time to read the codes; this reader takes less than half of that
// (docs/performance.md). What it reads goes on into libjpeg-turbo, which makes pixels of it.
//
// Only files without fault are read here. Whatever is irregular (a code that no table has, data
// that ends early, a restart marker that is not the next) makes `next` say no, and the caller
// decodes the image again by libjpeg alone: what a broken file gives is what libjpeg gives.
//
// Codes, tables and the order of coefficients: ITU-T T.81, annexes C and F.2.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "rehearse/image/code_table.h"

namespace steelyard::rehearse {

class HuffmanScan {
 public:
  // After jpeg_start_decompress, before a row is read. False: a scan that is not read here
  // (progressive, arithmetic codes, several scans); `info` is as it was.
  [[nodiscard]] bool start(jpeg_decompress_struct& info);
  // The coefficients of the next MCU into `blocks`, which hold zeros; null: passed over.
  [[nodiscard]] bool next(JBLOCKROW* blocks);

 private:
  // What was built of a file's table stays: most files have the same ones.
  template <class Built>
  struct Known {
    JHUFF_TBL of{};
    bool built = false;
    Built table;

    [[nodiscard]] bool build(const JHUFF_TBL* from);
  };
  struct Part {  // a block of an MCU
    const CodeTable* difference = nullptr;
    const PairTable* coefficients = nullptr;
    int component = 0;
  };
  // The bits to come. `window` holds `held` of them, the first one highest; what lies below is
  // either zero or the beginning of the byte at `at`.
  struct Bits {
    std::uint64_t window = 0;
    unsigned held = 0;
    const std::uint8_t* at = nullptr;
    const std::uint8_t* clear = nullptr;  // eight bytes from here, or from before, are all plain

    void drop(unsigned count);
  };

  [[nodiscard]] Bits bits_from(const std::uint8_t* at);
  [[nodiscard]] const std::uint8_t* clear_from(const std::uint8_t* at) const;
  void refill(Bits& bits);
  [[nodiscard]] Bits refill_by_bytes(Bits bits);
  [[nodiscard]] bool restart();
  [[nodiscard]] unsigned read_apart(const CodeTable& codes, unsigned next, Bits& bits,
                                    JCOEF* block);
  [[nodiscard]] unsigned read_coefficients(const PairTable& table, Bits& bits, JCOEF* block);
  [[nodiscard]] bool read_block(const Part& part, Bits& bits, JCOEF* block);
  template <bool kKeep>
  [[nodiscard]] bool read_unit(JBLOCKROW* blocks);
  [[nodiscard]] bool read_unit_bmi2(JBLOCKROW* blocks);
  [[nodiscard]] bool skip_unit_bmi2();

  std::array<Known<CodeTable>, NUM_HUFF_TBLS> differences_;
  std::array<Known<PairTable>, NUM_HUFF_TBLS> coefficients_;
  std::array<Part, D_MAX_BLOCKS_IN_MCU> parts_;
  int parts_used_ = 0;
  std::array<int, MAX_COMPS_IN_SCAN> last_{};  // DC of each component
  Bits bits_;
  const std::uint8_t* end_ = nullptr;
  unsigned made_up_ = 0;               // zeros behind a marker, the last of the bits held
  bool cut_ = false;                   // the file ends without a marker
  unsigned interval_ = 0, to_go_ = 0;  // MCUs between restart markers (0: none), until the next
  unsigned restarts_ = 0;
};

}  // namespace steelyard::rehearse
