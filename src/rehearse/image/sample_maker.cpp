#include "rehearse/image/sample_maker.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace steelyard::rehearse {
namespace {

// torchvision's reference training: transforms.Normalize(mean, std) on values in 0..1.
constexpr std::array<float, 3> kMean = {0.485F, 0.456F, 0.406F};
constexpr std::array<float, 3> kDeviation = {0.229F, 0.224F, 0.225F};

void grow(std::vector<std::uint8_t>& buffer, std::size_t bytes) {
  if (buffer.size() < bytes) buffer.resize(bytes);
}

}  // namespace

OrFlaw<void> SampleMaker::make(std::span<const std::uint8_t> file, std::uint64_t seed,
                               std::uint8_t* sample) {
  ImageDecoder& decoder = looks_like_png(file) ? *png_ : *jpeg_;
  const auto size = decoder.open(file);
  if (!size) return std::unexpected(size.error());
  held_ = std::max(held_, size->held);
  Random random(seed);
  const Box box = random_resized_crop(size->width, size->height, random);
  const bool mirrored = random.real() < 0.5;
  auto made = render(decoder, box, mirrored, sample);
  decoder.finish();
  return made;
}

OrFlaw<void> SampleMaker::make_from(std::span<const std::uint8_t> file, const Box& box,
                                    bool mirrored, std::uint8_t* sample) {
  ImageDecoder& decoder = looks_like_png(file) ? *png_ : *jpeg_;
  const auto size = decoder.open(file);
  if (!size) return std::unexpected(size.error());
  auto made = render(decoder, box, mirrored, sample);
  decoder.finish();
  return made;
}

OrFlaw<void> SampleMaker::render(ImageDecoder& decoder, const Box& box, bool mirrored,
                                 std::uint8_t* sample) {
  const int shrink = scaled_decode_ && decoder.can_shrink() ? legal_shrink(box, shape_.side) : 1;
  const auto region = decoder.start(box, shrink);
  if (!region) return std::unexpected(region.error());
  const double part = 1.0 / shrink;
  make_taps(box.left * part - region->left, box.width * part, region->width, shape_.side, mirrored,
            across_);
  make_taps(box.top * part - region->top, box.height * part, region->height, shape_.side, false,
            down_);
  const std::size_t width = static_cast<std::size_t>(region->width) * 4;
  const std::size_t stride = width + kOverrun + static_cast<std::size_t>(across_.most) * 4;
  const std::size_t kept = static_cast<std::size_t>(down_.most);
  grow(ring_, stride * kept);
  grow(line_, stride);
  grow(out_, static_cast<std::size_t>(shape_.side) * 3 + kOverrun);
  rows_.resize(kept);
  const auto row_at = [&](int y) { return ring_.data() + stride * (std::size_t(y) % kept); };

  int decoded = 0;
  for (int y = 0; y < shape_.side; ++y) {
    const int first = down_.first[static_cast<std::size_t>(y)];
    const std::int16_t* weights = down_.of(y);
    int used = down_.most;
    while (used > 1 && weights[used - 1] == 0) --used;
    for (; decoded < first + used; ++decoded) {
      if (auto row = decoder.row(row_at(decoded)); !row) return std::unexpected(row.error());
    }
    // Rows without a weight may not have come yet: any other stands in for them.
    for (int k = 0; k < down_.most; ++k) {
      rows_[static_cast<std::size_t>(k)] = row_at(k < used ? first + k : first);
    }
    blend_rows(rows_.data(), weights, down_.most, line_.data(), width);
    write_row(line_.data(), y, sample);
  }
  return {};
}

void SampleMaker::write_row(const std::uint8_t* pixels, int y, std::uint8_t* sample) {
  const std::size_t side = static_cast<std::size_t>(shape_.side);
  const std::size_t row = static_cast<std::size_t>(y);
  if (shape_.pixels == Pixels::u8) {
    blend_pixels(pixels, across_, sample + row * side * 3);
    return;
  }
  std::uint8_t* line = out_.data();
  blend_pixels(pixels, across_, line);
  for (std::size_t c = 0; c < 3; ++c) {
    float* plane = reinterpret_cast<float*>(sample) + (c * side + row) * side;
    const float factor = 1.0F / (255.0F * kDeviation[c]), offset = -kMean[c] / kDeviation[c];
    for (std::size_t x = 0; x < side; ++x) {
      plane[x] = static_cast<float>(line[x * 3 + c]) * factor + offset;
    }
  }
}

}  // namespace steelyard::rehearse
