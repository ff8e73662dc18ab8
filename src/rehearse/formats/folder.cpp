#include "rehearse/formats/folder.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <system_error>
#include <utility>

#include "rehearse/formats/index.h"

namespace steelyard::rehearse {
namespace {

namespace fs = std::filesystem;

class Lister {
 public:
  explicit Lister(std::uint64_t max_files) : max_files_(max_files) {}

  Result<Listing> run(const fs::path& top) {
    std::vector<fs::path> folders{top};
    while (!folders.empty()) {
      const fs::path folder = std::move(folders.back());
      folders.pop_back();
      if (!is_new(folder)) continue;
      if (!take_folder(folder, folders)) return fail(too_many(top));
    }
    for (auto& [format, found] : listing_.by_format) {
      std::sort(found.paths.begin(), found.paths.end());
    }
    return std::move(listing_);
  }

 private:
  // False when there are too many files.
  bool take_folder(const fs::path& folder, std::vector<fs::path>& folders) {
    std::error_code error;
    fs::directory_iterator entries(folder, error);
    for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
      const std::string name = entries->path().filename().string();
      if (name.starts_with('.')) continue;
      struct stat status {};
      if (::stat(entries->path().c_str(), &status) != 0) {
        listing_.unreadable.push_back(entries->path().string());
      } else if (S_ISDIR(status.st_mode)) {
        folders.push_back(entries->path());
      } else if (S_ISREG(status.st_mode)) {
        Found& found = listing_.by_format[format_of_name(name)];
        found.paths.push_back(entries->path().string());
        found.bytes += static_cast<std::uint64_t>(status.st_size);
        if (++files_ > max_files_) return false;
      }
    }
    if (error) listing_.unreadable.push_back(folder.string());
    return true;
  }

  bool is_new(const fs::path& folder) {
    struct stat status {};
    if (::stat(folder.c_str(), &status) != 0) return false;
    return seen_.insert({status.st_dev, status.st_ino}).second;
  }

  [[nodiscard]] Error too_many(const fs::path& top) const {
    return {.code = ErrorCode::too_large,
            .subject = top.string(),
            .found = fmt::format("more than {} files", max_files_),
            .accepted = fmt::format("at most {}", max_files_),
            .hint = "name a folder further down"};
  }

  std::uint64_t max_files_;
  std::uint64_t files_ = 0;
  Listing listing_{};
  std::set<std::pair<dev_t, ino_t>> seen_{};
};

}  // namespace

const char* format_of_name(std::string_view name) {
  if (encoding_of_name(name) != Encoding::raw && name.find('.') != std::string_view::npos) {
    return "images";
  }
  const std::size_t dot = name.rfind('.');
  std::string extension(dot == std::string_view::npos ? "" : name.substr(dot + 1));
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::pair<const char*, const char*> kNames[] = {
      {"tar", "tar"},        {"tfrecord", "tfrecord"}, {"tfrecords", "tfrecord"},
      {"tfrec", "tfrecord"}, {"npy", "npy"},           {"bin", "tokens"},
      {"npz", "npz"},        {"parquet", "parquet"}};
  for (const auto& [ending, format] : kNames) {
    if (extension == ending) return format;
  }
  return "raw";
}

Result<Listing> list_files(const fs::path& folder, std::uint64_t max_files) {
  return Lister(max_files).run(folder);
}

}  // namespace steelyard::rehearse
