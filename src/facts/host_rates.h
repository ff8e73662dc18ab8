// What was measured of a host's memory and image decoding, as a machine file keeps it
// (`steelyard probe -o`). Bytes are counted as programs see them: a copy of n bytes counts 2 n.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/quantity.h"

namespace steelyard::facts {

// Threads on the cores of one NUMA node, memory on the same or another, all cores of the node.
struct HostMemoryRate {
  std::int64_t core_node = 0, memory_node = 0, threads = 1;
  BytesPerSecond read, write, copy, triad;
};

// One kind of work on pictures of about one size, by so many threads together.
struct HostImageRate {
  std::string work;  // facts::name_of(ImageWork): "jpeg", "png", "resize", "jpeg sample", ...
  std::int64_t width = 0, height = 0;
  Bytes compressed;  // of one stored picture; 0 for work on pixels
  std::int64_t threads = 1;
  SamplesPerSecond images;
};

// Time of one picture on one core = pixels x per_pixel + stored bytes x per_byte.
struct HostDecodeModel {
  std::string work;
  Seconds per_pixel, per_byte;
};

// Empty where nothing was measured.
struct HostRates {
  std::vector<HostMemoryRate> memory;
  std::vector<HostImageRate> images;
  std::vector<HostDecodeModel> decode;
  std::string source;  // "steelyard probe, 2026-11-29: libjpeg-turbo 2.1.5, synthetic images"

  [[nodiscard]] const HostDecodeModel* model_of(const std::string& work) const {
    for (const HostDecodeModel& model : decode) {
      if (model.work == work) return &model;
    }
    return nullptr;
  }
};

}  // namespace steelyard::facts
