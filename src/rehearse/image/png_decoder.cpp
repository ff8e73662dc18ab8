// PNG by libspng: rows from the first on, those behind the wanted part are never inflated.
#include <spng.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "rehearse/image/decoder.h"

namespace steelyard::rehearse {
namespace {

// A chunk of text or colour profile that claims more is refused (libspng's own limits are none).
constexpr std::size_t kLargestChunk = std::size_t{64} << 20;
// Of a byte of the file: deflate makes at most 1032 of one, and a pixel has a bit at least.
constexpr std::int64_t kMostPixelsPerByte = 1032 * 8;

class PngDecoder final : public ImageDecoder {
 public:
  OrFlaw<ImageSize> open(std::span<const std::uint8_t> bytes) override;
  OrFlaw<PixelRegion> start(const Box& box, int shrink) override;
  OrFlaw<void> row(std::uint8_t* pixels) override;
  void finish() override {
    context_.reset();
    std::vector<std::uint8_t>().swap(whole_);
  }

 private:
  struct Free {
    void operator()(spng_ctx* context) const { spng_ctx_free(context); }
  };
  std::unexpected<Flaw> flaw(int error) {
    finish();
    return std::unexpected<Flaw>(std::string("PNG: ") + spng_strerror(error));
  }

  std::unique_ptr<spng_ctx, Free> context_;
  spng_ihdr head_{};
  Box box_{};
  std::vector<std::uint8_t> line_;   // one row of the file's width
  std::vector<std::uint8_t> whole_;  // all rows, of an interlaced image
  int next_ = 0;
};

OrFlaw<ImageSize> PngDecoder::open(std::span<const std::uint8_t> bytes) {
  context_.reset(spng_ctx_new(0));
  if (!context_) return std::unexpected<Flaw>("libspng cannot start: is memory short?");
  spng_set_chunk_limits(context_.get(), kLargestChunk, kLargestChunk);
  if (const int error = spng_set_png_buffer(context_.get(), bytes.data(), bytes.size())) {
    return flaw(error);
  }
  if (const int error = spng_get_ihdr(context_.get(), &head_)) return flaw(error);
  const std::int64_t pixels = std::int64_t{head_.width} * head_.height;
  if (pixels > kMostPixels) {
    finish();
    return std::unexpected<Flaw>("PNG: more pixels than are accepted");
  }
  if (pixels > static_cast<std::int64_t>(bytes.size()) * kMostPixelsPerByte) {
    finish();
    return std::unexpected<Flaw>("PNG: more pixels than the file can hold");
  }
  return ImageSize{.width = static_cast<int>(head_.width),
                   .height = static_cast<int>(head_.height),
                   .held = head_.interlace_method != 0 ? pixels * 4 : 0};
}

OrFlaw<PixelRegion> PngDecoder::start(const Box& box, int /*shrink*/) {
  const std::size_t stride = std::size_t{head_.width} * 4;
  const bool interlaced = head_.interlace_method != 0;
  box_ = box;
  next_ = box.top;
  if (interlaced) {
    whole_.resize(stride * head_.height);
    const int error = spng_decode_image(context_.get(), whole_.data(), whole_.size(),
                                        SPNG_FMT_RGBA8, SPNG_DECODE_TRNS);
    if (error != 0) return flaw(error);
  } else {
    line_.resize(stride);
    const int error =
        spng_decode_image(context_.get(), nullptr, 0, SPNG_FMT_RGBA8, SPNG_DECODE_PROGRESSIVE);
    if (error != 0) return flaw(error);
    for (int y = 0; y < box.top; ++y) {
      const int skipped = spng_decode_row(context_.get(), line_.data(), line_.size());
      if (skipped != 0 && skipped != SPNG_EOI) return flaw(skipped);
    }
  }
  return PixelRegion{.left = box.left, .top = box.top, .width = box.width, .height = box.height};
}

OrFlaw<void> PngDecoder::row(std::uint8_t* pixels) {
  const std::size_t stride = std::size_t{head_.width} * 4;
  const std::uint8_t* from = line_.data();
  if (!whole_.empty()) {
    from = whole_.data() + stride * static_cast<std::size_t>(next_++);
  } else {
    const int error = spng_decode_row(context_.get(), line_.data(), stride);
    if (error != 0 && error != SPNG_EOI) return flaw(error);  // end of image: the last row came
  }
  std::memcpy(pixels, from + static_cast<std::size_t>(box_.left) * 4,
              static_cast<std::size_t>(box_.width) * 4);
  return {};
}

}  // namespace

std::unique_ptr<ImageDecoder> make_png_decoder() {
  return std::make_unique<PngDecoder>();
}

bool looks_like_png(std::span<const std::uint8_t> bytes) {
  constexpr std::uint8_t kSignature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  return bytes.size() >= sizeof(kSignature) &&
         std::memcmp(bytes.data(), kSignature, sizeof(kSignature)) == 0;
}

}  // namespace steelyard::rehearse
