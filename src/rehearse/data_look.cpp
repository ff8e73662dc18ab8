#include "rehearse/data_look.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <vector>

#include "rehearse/image/decoder.h"

namespace steelyard::rehearse {
namespace {

constexpr std::size_t kPictures = 64;

std::vector<std::uint8_t> bytes_of(const Dataset& dataset, const Record& record) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(record.bytes));
  std::ifstream file(dataset.files[record.file], std::ios::binary);
  file.seekg(static_cast<std::streamoff>(record.offset));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) bytes.clear();
  return bytes;
}

void look_at_pictures(const Dataset& dataset, DataLook& look) {
  const auto jpeg = make_jpeg_decoder();
  const auto png = make_png_decoder();
  const std::size_t step = std::max<std::size_t>(1, dataset.records.size() / kPictures);
  double height = 0, width = 0, count = 0;
  for (std::size_t i = 0; i < dataset.records.size(); i += step) {
    const std::vector<std::uint8_t> bytes = bytes_of(dataset, dataset.records[i]);
    if (bytes.empty()) continue;
    ImageDecoder& decoder = looks_like_png(bytes) ? *png : *jpeg;
    const auto size = decoder.open(bytes);
    decoder.finish();
    if (!size) continue;
    height += size->height;
    width += size->width;
    ++count;
  }
  if (count == 0) return;
  look.height = height / count;
  look.width = width / count;
}

}  // namespace

DataLook look_at(const Dataset& dataset) {
  DataLook look{.records = static_cast<std::int64_t>(dataset.records.size())};
  if (dataset.records.empty()) return look;
  double sum = 0, squares = 0;
  for (const Record& record : dataset.records) {
    const auto bytes = static_cast<double>(record.bytes);
    sum += bytes;
    squares += bytes * bytes;
  }
  const auto count = static_cast<double>(dataset.records.size());
  look.bytes = sum / count;
  look.deviation = std::sqrt(std::max(0.0, squares / count - look.bytes * look.bytes));
  if (dataset.encoding == Encoding::jpeg || dataset.encoding == Encoding::png) {
    look_at_pictures(dataset, look);
  }
  return look;
}

}  // namespace steelyard::rehearse
