#include "rehearse/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "rehearse/formats/folder.h"
#include "rehearse/formats/index.h"

namespace steelyard::rehearse {
namespace {

namespace fs = std::filesystem;

Part<void> index_image(SourceFile& file, Index& index, std::string_view name) {
  if (file.size() == 0) return Broken("is empty");
  (void)index.add(0, file.size(), encoding_of_name(name));
  return {};
}

constexpr std::pair<std::string_view, Part<void> (*)(SourceFile&, Index&)> kReaders[] = {
    {"tar", index_tar}, {"tfrecord", index_tfrecord}, {"npy", index_npy}, {"tokens", index_tokens},
    {"npz", index_npz}, {"parquet", index_parquet},   {"raw", index_raw}};

constexpr std::string_view kFormats = "images, tar, tfrecord, npy, tokens, npz, parquet or raw";

Part<void> index_file(std::string_view format, const std::string& path, Index& index) {
  Part<SourceFile> file = SourceFile::open(path);
  if (!file) return Broken(file.error());
  if (format == "images") return index_image(*file, index, path);
  for (const auto& [name, reader] : kReaders) {
    if (name == format) return reader(*file, index);
  }
  return Broken("is of no known format");
}

Result<void> check(const OpenOptions& options) {
  const bool known = options.format.empty() || options.format == "images" ||
                     std::any_of(std::begin(kReaders), std::end(kReaders),
                                 [&](const auto& r) { return r.first == options.format; });
  if (!known) {
    return fail({.code = ErrorCode::unknown_name,
                 .subject = "the format of the data",
                 .found = options.format,
                 .accepted = std::string(kFormats)});
  }
  if (options.token_bytes != 2 && options.token_bytes != 4) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "bytes per token",
                 .found = fmt::to_string(options.token_bytes),
                 .accepted = "2 or 4"});
  }
  if (options.sequence_tokens == 0) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "tokens per sequence",
                 .found = "0",
                 .accepted = "1 or more"});
  }
  return {};
}

struct Choice {
  std::string format;
  std::vector<std::string> paths;
  std::vector<std::string> remarks;
};

// A file whose name says nothing may still be a TFRecord shard ("train-00000-of-01024").
bool first_is_tfrecord(const std::vector<std::string>& paths) {
  if (paths.empty()) return false;
  Part<SourceFile> file = SourceFile::open(paths.front());
  return file && looks_like_tfrecord(*file);
}

// The format that has most of the bytes; names that say nothing count only when there are no
// others.
Choice choose(Listing listing, const OpenOptions& options) {
  Choice choice;
  if (!options.format.empty()) {
    choice.format = options.format;
    // A hint also holds for names that say nothing, and "raw" for all.
    for (auto& [format, found] : listing.by_format) {
      const bool taken = format == options.format || format == "raw" || options.format == "raw";
      if (!taken) continue;
      if (format == "raw" && options.format != "raw" &&
          listing.by_format.contains(options.format)) {
        continue;
      }
      choice.paths.insert(choice.paths.end(), found.paths.begin(), found.paths.end());
    }
    std::sort(choice.paths.begin(), choice.paths.end());
    return choice;
  }
  const Found* best = nullptr;
  for (const auto& [format, found] : listing.by_format) {
    if (format == "raw" && listing.by_format.size() > 1) continue;
    if (best == nullptr || found.bytes > best->bytes) {
      best = &found;
      choice.format = format;
    }
  }
  if (best == nullptr) return choice;
  for (const auto& [format, found] : listing.by_format) {
    if (format == choice.format) continue;
    choice.remarks.push_back(fmt::format("{} other files ({}) are left out, as {}",
                                         found.paths.size(), format, found.paths.front()));
  }
  if (choice.format == "raw" && first_is_tfrecord(best->paths)) choice.format = "tfrecord";
  choice.paths = best->paths;
  return choice;
}

Result<Dataset> read_all(const Choice& choice, const std::vector<std::string>& unreadable,
                         const OpenOptions& options, const std::string& whole) {
  Index index(options);
  for (const std::string& path : unreadable) index.fault(path, "cannot be read");
  for (const std::string& remark : choice.remarks) index.remark(remark);
  if (choice.format == "parquet") {
    index.remark(options.record_bytes != 0
                     ? "parquet is not decoded: its bytes are cut in records of the given size"
                     : "parquet is not decoded: a record is a row group as stored");
  }
  for (const std::string& path : choice.paths) {
    index.begin_file(path);
    const Part<void> read = index_file(choice.format, path, index);
    if (!read) index.fault(path, read.error());
    if (index.full()) {
      return fail({.code = ErrorCode::too_large,
                   .subject = whole,
                   .found = fmt::format("more than {} records", options.max_records),
                   .accepted = fmt::format("at most {}", options.max_records)});
    }
  }
  Dataset data = index.finish(choice.format);
  if (data.records.empty()) {
    const std::string first =
        data.faults.empty() ? "" : fmt::format("{} {}", data.faults[0].file, data.faults[0].what);
    return fail({.code = ErrorCode::bad_input,
                 .subject = whole,
                 .found = choice.paths.empty() ? "no files"
                                               : fmt::format("no record in {} files ({})",
                                                             choice.paths.size(), choice.format),
                 .accepted = std::string(kFormats),
                 .hint = first});
  }
  return data;
}

}  // namespace

Result<Dataset> open_dataset(const fs::path& folder_or_file, const OpenOptions& options) {
  STEELYARD_CHECK(check(options));
  const std::string whole = folder_or_file.string();
  std::error_code error;
  const fs::file_status status = fs::status(folder_or_file, error);
  if (!fs::exists(status)) {
    return fail({.code = ErrorCode::unreadable,
                 .subject = whole,
                 .found = error && error != std::errc::no_such_file_or_directory ? error.message()
                                                                                 : "nothing there",
                 .accepted = "a folder or a file of training data"});
  }
  if (!fs::is_directory(status)) {
    Choice choice{options.format, {whole}, {}};
    if (choice.format.empty()) choice.format = format_of_name(folder_or_file.filename().string());
    if (choice.format == "raw" && options.format.empty() && first_is_tfrecord(choice.paths)) {
      choice.format = "tfrecord";
    }
    return read_all(choice, {}, options, whole);
  }
  STEELYARD_TRY(listing, list_files(folder_or_file, options.max_files));
  const std::vector<std::string> unreadable = listing.unreadable;
  return read_all(choose(std::move(listing), options), unreadable, options, whole);
}

}  // namespace steelyard::rehearse
