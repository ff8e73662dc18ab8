// What a data set on disk is made of: the files, and where in them the bytes of each record lie.
// `open_dataset` reads directories and headers only, never the records: its memory is the index
// (24 bytes per record, the names of the files), and it never reads past the end of a file.
//
// Errors of the whole (nothing there, nothing readable, a limit exceeded) are an Error; a file that
// is broken is a Fault with its name and the offset, and the records before the break are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"

namespace steelyard::rehearse {

// How the bytes of a record become a sample.
enum class Encoding {
  jpeg,    // an image; in a mix with PNG too: the first bytes of a record say which it is
  png,     // all records are PNG
  raw,     // taken as they are
  tokens,  // whole numbers of `Dataset::token_bytes` each, little endian
};
[[nodiscard]] const char* name_of(Encoding encoding);

struct Record {
  std::uint32_t file = 0;    // index into Dataset::files
  std::uint64_t offset = 0;  // of its first byte in that file
  std::uint64_t bytes = 0;   // as stored; offset + bytes is at most the size of the file
};

struct Fault {
  std::string file;  // path
  std::string what;  // what is wrong, with the offset where it has one
};

// Formats by name: "images", "tar", "tfrecord", "npy", "tokens", "npz", "parquet", "raw".
struct OpenOptions {
  std::string format{};                  // one of the names; empty: by the names of the files
  std::uint64_t record_bytes = 0;        // raw, parquet: fixed size of a record; 0: the whole file
                                         // (parquet: a row group)
  std::uint64_t sequence_tokens = 1024;  // tokens: length of one sequence
  std::uint32_t token_bytes = 2;         // .bin without a header of its own: 2 or 4
  std::uint64_t max_files = 20'000'000;
  std::uint64_t max_records = 100'000'000;
  std::size_t max_faults = 1'000;  // kept by name; all are counted
};

struct Dataset {
  std::vector<std::string> files;  // paths, sorted
  std::vector<Record> records;     // by file, then by offset
  Encoding encoding = Encoding::raw;
  std::string format;                // name of the format
  Bytes total;                       // of all records, as stored
  std::vector<Fault> faults;         // the first max_faults
  std::uint64_t faults_total = 0;    // all of them
  std::uint32_t token_bytes = 0;     // tokens: of one, else 0
  std::vector<bool> deflated;        // by record: a raw deflate stream; empty when none is
  std::vector<std::string> remarks;  // what a reader should know ("labels.txt: ignored")
};

// A folder (with all below it) or one file.
[[nodiscard]] Result<Dataset> open_dataset(const std::filesystem::path& folder_or_file,
                                           const OpenOptions& options = {});

}  // namespace steelyard::rehearse
