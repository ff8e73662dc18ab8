// The index that the readers of the formats fill: one function per format, each called once per
// file. A function returns what is wrong with the file and where; what it added before stays.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "rehearse/dataset.h"
#include "rehearse/formats/source_file.h"

namespace steelyard::rehearse {

class Index {
 public:
  explicit Index(const OpenOptions& options) : options_(options) {}

  [[nodiscard]] const OpenOptions& options() const { return options_; }

  // The file that the next records lie in.
  void begin_file(const std::filesystem::path& path);
  // False when there are as many records as are allowed: the reader returns.
  [[nodiscard]] bool add(std::uint64_t offset, std::uint64_t bytes, Encoding encoding,
                         bool deflated = false);
  // Tokens of one file are as wide as those of the others, else Broken.
  [[nodiscard]] Part<void> set_token_bytes(std::uint32_t bytes);
  void fault(std::string what);  // of the current file
  void fault(std::string file, std::string what);
  void remark(std::string text) { data_.remarks.push_back(std::move(text)); }

  [[nodiscard]] bool full() const { return full_; }
  [[nodiscard]] std::size_t size() const { return data_.records.size(); }
  // The whole, with one encoding: beside images, records that are none are left out.
  [[nodiscard]] Dataset finish(std::string format);

 private:
  [[nodiscard]] std::uint64_t count(Encoding encoding) const {
    return counts_[static_cast<std::size_t>(encoding)];
  }
  void leave_out_raw();

  const OpenOptions& options_;
  Dataset data_{};
  std::vector<Encoding> encodings_{};
  std::array<std::uint64_t, 4> counts_{};
  std::uint64_t deflated_ = 0;
  bool full_ = false;
};

// By extension: jpeg, png, else raw. "a/b.JPG", ".jpeg", "jpg".
[[nodiscard]] Encoding encoding_of_name(std::string_view name);

[[nodiscard]] Part<void> index_tar(SourceFile& file, Index& index);
[[nodiscard]] Part<void> index_tfrecord(SourceFile& file, Index& index);
[[nodiscard]] Part<void> index_npy(SourceFile& file, Index& index);
[[nodiscard]] Part<void> index_tokens(SourceFile& file, Index& index);
[[nodiscard]] Part<void> index_npz(SourceFile& file, Index& index);
[[nodiscard]] Part<void> index_parquet(SourceFile& file, Index& index);
[[nodiscard]] Part<void> index_raw(SourceFile& file, Index& index);

// Whether a file begins as a TFRecord file does: a length whose checksum is right.
[[nodiscard]] bool looks_like_tfrecord(SourceFile& file);

}  // namespace steelyard::rehearse
