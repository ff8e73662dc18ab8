// Files of the formats that src/rehearse/formats reads, record by record. Each writes into an
// AtomicFile that its caller finishes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "rehearse/write/atomic_file.h"
#include "rehearse/write/record_source.h"

namespace steelyard::rehearse {

// numpy.savez(x = uint8 array of that many bytes in one axis, y = [0]), members stored; zip64 where
// sizes ask for it.
[[nodiscard]] Result<void> write_npz(AtomicFile& file, RecordSource& source, std::uint64_t bytes);

// One record of a TFRecord file: a tf.train.Example with the record under `key` and an int64
// "image/class/label".
[[nodiscard]] Result<void> write_tfrecord(AtomicFile& file, RecordSource& source,
                                          std::uint64_t bytes, std::string_view key);

// Parquet with one column "data" of FIXED_LEN_BYTE_ARRAY(bytes), plain, not compressed.
[[nodiscard]] Result<void> write_parquet(AtomicFile& file, RecordSource& source,
                                         std::uint64_t bytes, std::int64_t rows);

// The .npy header of a C-ordered array, padded so that the data begin at a multiple of 64.
[[nodiscard]] std::string npy_header(std::string_view descr,
                                     const std::vector<std::uint64_t>& shape);

struct TarMember {
  std::string name;
  std::string content;
};
// One member of a ustar archive (a pax header before it where the name is long), and its end.
[[nodiscard]] Result<void> write_tar_member(AtomicFile& file, const TarMember& member);
[[nodiscard]] Result<void> write_tar_end(AtomicFile& file);

// Little-endian bytes at the end of a text.
void append_le(std::string& to, std::uint64_t value, int bytes);

}  // namespace steelyard::rehearse
