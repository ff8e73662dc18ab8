#include "rehearse/formats/index.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <limits>

namespace steelyard::rehearse {

const char* name_of(Encoding encoding) {
  switch (encoding) {
    case Encoding::jpeg: return "jpeg";
    case Encoding::png: return "png";
    case Encoding::raw: return "raw";
    case Encoding::tokens: return "tokens";
  }
  return "raw";
}

Encoding encoding_of_name(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  std::string extension(dot == std::string_view::npos ? name : name.substr(dot + 1));
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (extension == "jpg" || extension == "jpeg" || extension == "jpe") return Encoding::jpeg;
  return extension == "png" ? Encoding::png : Encoding::raw;
}

void Index::begin_file(const std::filesystem::path& path) {
  // A file that gave no record needs no place in the list.
  const bool used = !data_.records.empty() && data_.records.back().file + 1 == data_.files.size();
  if (!data_.files.empty() && !used) data_.files.pop_back();
  data_.files.push_back(path.string());
}

bool Index::add(std::uint64_t offset, std::uint64_t bytes, Encoding encoding, bool deflated) {
  if (data_.records.size() >= options_.max_records) {
    full_ = true;
    return false;
  }
  data_.records.push_back({static_cast<std::uint32_t>(data_.files.size() - 1), offset, bytes});
  encodings_.push_back(encoding);
  ++counts_[static_cast<std::size_t>(encoding)];
  if (deflated && deflated_++ == 0) data_.deflated.resize(data_.records.size() - 1);
  if (deflated_ > 0) data_.deflated.push_back(deflated);
  return true;
}

Part<void> Index::set_token_bytes(std::uint32_t bytes) {
  if (data_.token_bytes != 0 && data_.token_bytes != bytes) {
    return Broken(fmt::format("holds tokens of {} bytes, the files before it of {}", bytes,
                              data_.token_bytes));
  }
  data_.token_bytes = bytes;
  return {};
}

void Index::fault(std::string what) {
  fault(data_.files.back(), std::move(what));
}

void Index::fault(std::string file, std::string what) {
  if (data_.faults_total++ < options_.max_faults) {
    data_.faults.push_back({std::move(file), std::move(what)});
  }
}

void Index::leave_out_raw() {
  const std::uint64_t left_out = count(Encoding::raw);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < data_.records.size(); ++i) {
    if (encodings_[i] == Encoding::raw) continue;
    data_.records[kept] = data_.records[i];
    if (!data_.deflated.empty()) data_.deflated[kept] = data_.deflated[i];
    ++kept;
  }
  data_.records.resize(kept);
  if (!data_.deflated.empty()) data_.deflated.resize(kept);
  data_.remarks.push_back(fmt::format("{} records without an image are left out", left_out));
}

Dataset Index::finish(std::string format) {
  const std::uint64_t images = count(Encoding::jpeg) + count(Encoding::png);
  if (images > 0 && count(Encoding::raw) > 0) leave_out_raw();
  data_.encoding = count(Encoding::jpeg) > 0     ? Encoding::jpeg
                   : count(Encoding::png) > 0    ? Encoding::png
                   : count(Encoding::tokens) > 0 ? Encoding::tokens
                                                 : Encoding::raw;
  data_.format = std::move(format);
  // Each record lies within its file, but a hostile archive can name the same bytes many times.
  std::uint64_t total = 0;
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
  for (const Record& record : data_.records) total = std::min(kMost, total + record.bytes);
  data_.total = Bytes(static_cast<std::int64_t>(total));
  return std::move(data_);
}

}  // namespace steelyard::rehearse
