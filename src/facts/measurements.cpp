#include "facts/measurements.h"

namespace steelyard::facts {

const char* name_of(ImageWork work) {
  switch (work) {
    case ImageWork::jpeg: return "jpeg";
    case ImageWork::jpeg_half: return "jpeg 1/2";
    case ImageWork::jpeg_quarter: return "jpeg 1/4";
    case ImageWork::jpeg_eighth: return "jpeg 1/8";
    case ImageWork::png: return "png";
    case ImageWork::resize: return "resize 224";
    case ImageWork::jpeg_sample: return "jpeg sample";
    case ImageWork::png_sample: return "png sample";
  }
  return "";
}

const char* name_of(StoragePattern pattern) {
  switch (pattern) {
    case StoragePattern::sequential_read: return "sequential read";
    case StoragePattern::random_read: return "random read";
    case StoragePattern::sequential_write: return "sequential write";
    case StoragePattern::small_files: return "small files";
    case StoragePattern::cached_read: return "cached read";
    case StoragePattern::cached_records: return "cached record";
  }
  return "";
}

}  // namespace steelyard::facts
