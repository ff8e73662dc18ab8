#include "probe/image_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>

namespace steelyard::probe {

namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kImages = 8;               // of a synthetic group
constexpr std::uintmax_t kLargestFile = 64 << 20;  // a photograph; not a video with a wrong name
constexpr std::size_t kEnoughForTwo = 8;           // files of a group that is worth splitting

struct OneImage {
  Encoded file;
  int width = 0;
  int height = 0;

  [[nodiscard]] double pixels() const { return static_cast<double>(width) * height; }
  [[nodiscard]] double density() const { return static_cast<double>(file.size()) / pixels(); }
};

ImageGroup group_of(std::vector<OneImage> images, bool png) {
  ImageGroup group{.png = png};
  const auto count = static_cast<double>(images.size());
  for (OneImage& image : images) {
    group.width += image.width / count;
    group.height += image.height / count;
    group.bytes += static_cast<double>(image.file.size()) / count;
    group.files.push_back(std::move(image.file));
  }
  return group;
}

std::string extension_of(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

bool is_png(const fs::path& path) {
  return extension_of(path) == ".png";
}

bool is_image(const fs::path& path) {
  const std::string extension = extension_of(path);
  return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

std::vector<fs::path> paths_in(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  const auto options = fs::directory_options::skip_permission_denied;
  for (auto at = fs::recursive_directory_iterator(folder, options, error);
       !error && at != fs::recursive_directory_iterator(); at.increment(error)) {
    std::error_code ignored;
    if (is_image(at->path()) && at->is_regular_file(ignored)) paths.push_back(at->path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

Result<OneImage> read_image(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  const Error broken{.code = ErrorCode::bad_input,
                     .subject = path.string(),
                     .found = "no image of at most 64 MiB",
                     .accepted = "JPEG or PNG"};
  if (error || size == 0 || size > kLargestFile) return fail(broken);
  OneImage image;
  image.file.resize(size);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(image.file.data()), static_cast<std::streamsize>(size));
  if (!file) return fail(broken);
  Raster raster;
  if (is_png(path)) {
    STEELYARD_CHECK(decode_png(image.file, raster));
  } else {
    JpegDecoder decoder;
    STEELYARD_CHECK(decoder.decode(image.file, 1, raster));
  }
  image.width = raster.width;
  image.height = raster.height;
  return image;
}

template <class Key>
std::vector<std::vector<OneImage>> halves(std::vector<OneImage> images, Key key) {
  std::vector<std::vector<OneImage>> parts;
  if (images.size() < kEnoughForTwo) {
    parts.push_back(std::move(images));
    return parts;
  }
  std::sort(images.begin(), images.end(),
            [&](const OneImage& a, const OneImage& b) { return key(a) < key(b); });
  const auto middle = images.begin() + static_cast<std::ptrdiff_t>(images.size() / 2);
  parts.emplace_back(std::make_move_iterator(images.begin()), std::make_move_iterator(middle));
  parts.emplace_back(std::make_move_iterator(middle), std::make_move_iterator(images.end()));
  return parts;
}

void add_groups(std::vector<OneImage> images, bool png, std::vector<ImageGroup>& groups) {
  if (images.empty()) return;
  for (auto& size : halves(std::move(images), [](const OneImage& i) { return i.pixels(); })) {
    for (auto& part : halves(std::move(size), [](const OneImage& i) { return i.density(); }))
      groups.push_back(group_of(std::move(part), png));
  }
}

}  // namespace

Result<ImageGroup> synthetic_jpegs(int width, int height, Detail detail) {
  constexpr int kQuality = 90;
  std::vector<OneImage> images;
  for (std::uint32_t seed = 1; seed <= kImages; ++seed) {
    STEELYARD_TRY(file, encode_jpeg(synthetic_image(width, height, detail, seed), kQuality));
    images.push_back({.file = std::move(file), .width = width, .height = height});
  }
  return group_of(std::move(images), false);
}

Result<ImageGroup> synthetic_pngs(int width, int height, Detail detail) {
  std::vector<OneImage> images;
  for (std::uint32_t seed = 1; seed <= kImages / 2; ++seed) {
    STEELYARD_TRY(file, encode_png(synthetic_image(width, height, detail, seed)));
    images.push_back({.file = std::move(file), .width = width, .height = height});
  }
  return group_of(std::move(images), true);
}

Result<FolderImages> images_of(const fs::path& folder) {
  const std::vector<fs::path> paths = paths_in(folder);
  const std::size_t count = std::min(paths.size(), kMostFiles);
  FolderImages found;
  std::vector<OneImage> jpegs;
  std::vector<OneImage> pngs;
  for (std::size_t i = 0; i < count; ++i) {
    const fs::path& path = paths[i * paths.size() / count];
    Result<OneImage> image = read_image(path);
    if (!image) {
      ++found.broken;
      continue;
    }
    (is_png(path) ? pngs : jpegs).push_back(std::move(*image));
  }
  if (jpegs.empty() && pngs.empty()) {
    return fail({.code = ErrorCode::unreadable,
                 .subject = folder.string(),
                 .found = fmt::format("{} files named .jpg, .jpeg or .png, {} broken", paths.size(),
                                      found.broken),
                 .accepted = "a folder with JPEG or PNG images"});
  }
  add_groups(std::move(jpegs), false, found.groups);
  add_groups(std::move(pngs), true, found.groups);
  return found;
}

}  // namespace steelyard::probe
