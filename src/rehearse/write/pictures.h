// JPEG images that cost a decoder what photographs cost: noise whose strength falls with its
// frequency as it does in natural images, cut out of one large canvas so that no two are equal.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "rehearse/write/noise.h"

namespace steelyard::rehearse {

class Pictures {
 public:
  // Errors: internal, when libjpeg-turbo fails.
  [[nodiscard]] static Result<Pictures> create(std::uint64_t seed);

  // A JPEG of exactly `bytes` (filled up with a comment), into `jpeg`. Below about 1 kB the
  // smallest one, which is larger. Safe to call from several threads.
  [[nodiscard]] Result<void> make(std::uint64_t bytes, Noise& noise,
                                  std::vector<unsigned char>& jpeg) const;

 private:
  Pictures() = default;
  void paint(std::uint64_t seed);
  [[nodiscard]] Result<void> encode(int x, int y, int width, int height,
                                    std::vector<unsigned char>& jpeg) const;

  std::vector<unsigned char> canvas_{};  // RGB, rows in order
  double bytes_per_pixel_ = 0.5;         // of an encoded image
};

}  // namespace steelyard::rehearse
