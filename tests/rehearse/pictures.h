// Small images for tests, made in memory by TurboJPEG and libspng, and folders of them.
#pragma once

#include <spng.h>
#include <turbojpeg.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "rehearse/dataset.h"

namespace steelyard::rehearse::testing {

using Bytes8 = std::vector<std::uint8_t>;

// Smooth colours and some texture: red grows to the right, green downwards.
inline Bytes8 pixels(int width, int height) {
  Bytes8 rgb;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      rgb.push_back(static_cast<std::uint8_t>(x * 255 / std::max(1, width - 1)));
      rgb.push_back(static_cast<std::uint8_t>(y * 255 / std::max(1, height - 1)));
      rgb.push_back(static_cast<std::uint8_t>(128 + ((x / 8 + y / 8) % 2) * 40));
    }
  }
  return rgb;
}

inline Bytes8 jpeg(int width, int height, int flags = 0, int subsampling = TJSAMP_420) {
  const Bytes8 rgb = pixels(width, height);
  unsigned char* out = nullptr;
  unsigned long size = 0;
  tjhandle handle = tjInitCompress();
  tjCompress2(handle, rgb.data(), width, 0, height, TJPF_RGB, &out, &size, subsampling, 92, flags);
  Bytes8 bytes(out, out + size);
  tjFree(out);
  tjDestroy(handle);
  return bytes;
}

inline Bytes8 png(int width, int height, bool interlaced = false) {
  const Bytes8 rgb = pixels(width, height);
  spng_ctx* context = spng_ctx_new(SPNG_CTX_ENCODER);
  spng_set_option(context, SPNG_ENCODE_TO_BUFFER, 1);
  spng_ihdr head{};
  head.width = static_cast<std::uint32_t>(width);
  head.height = static_cast<std::uint32_t>(height);
  head.bit_depth = 8;
  head.color_type = SPNG_COLOR_TYPE_TRUECOLOR;
  head.interlace_method = interlaced ? 1 : 0;
  spng_set_ihdr(context, &head);
  spng_encode_image(context, rgb.data(), rgb.size(), SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
  std::size_t size = 0;
  int error = 0;
  void* out = spng_get_png_buffer(context, &size, &error);
  Bytes8 bytes(static_cast<std::uint8_t*>(out), static_cast<std::uint8_t*>(out) + size);
  std::free(out);
  spng_ctx_free(context);
  return bytes;
}

// A folder that is gone when the test is.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "steelyard_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  std::string write(const std::string& name, const Bytes8& bytes) const {
    const std::string path = (path_ / name).string();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }

 private:
  std::filesystem::path path_;
};

// A data set of one record per file, as given.
inline void add_file(Dataset& dataset, const std::string& path, std::size_t bytes) {
  dataset.records.push_back(
      {.file = static_cast<std::uint32_t>(dataset.files.size()), .offset = 0, .bytes = bytes});
  dataset.files.push_back(path);
  dataset.total += Bytes(static_cast<std::int64_t>(bytes));
}

// `count` JPEG files that differ in size.
inline Dataset jpeg_folder(const Folder& folder, int count, int width = 96, int height = 72) {
  Dataset dataset;
  dataset.encoding = Encoding::jpeg;
  dataset.format = "images";
  for (int i = 0; i < count; ++i) {
    const Bytes8 bytes = jpeg(width + i % 7, height + i % 5);
    add_file(dataset, folder.write("image" + std::to_string(i) + ".jpg", bytes), bytes.size());
  }
  return dataset;
}

}  // namespace steelyard::rehearse::testing
