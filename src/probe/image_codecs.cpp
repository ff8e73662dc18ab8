#include <fmt/format.h>
#include <spng.h>
#include <turbojpeg.h>

#include "probe/raster.h"

namespace steelyard::probe {

namespace {

Error broken(const std::string& what, const std::string& found) {
  return {.code = ErrorCode::bad_input,
          .subject = what,
          .found = found,
          .accepted = "an image that the library takes"};
}

using SpngContext = std::unique_ptr<spng_ctx, void (*)(spng_ctx*)>;

}  // namespace

Result<Encoded> encode_jpeg(const Raster& image, int quality) {
  const std::unique_ptr<void, int (*)(void*)> encoder(tjInitCompress(), tjDestroy);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const int status = tjCompress2(encoder.get(), image.pixels.data(), image.width, 0, image.height,
                                 TJPF_RGB, &bytes, &size, TJSAMP_420, quality, 0);
  const std::unique_ptr<unsigned char, void (*)(unsigned char*)> owner(bytes, tjFree);
  if (status != 0) return fail(broken("encoding a JPEG", tjGetErrorStr2(encoder.get())));
  return Encoded(bytes, bytes + size);
}

Result<Encoded> encode_png(const Raster& image) {
  const SpngContext context(spng_ctx_new(SPNG_CTX_ENCODER), spng_ctx_free);
  spng_ihdr header{};
  header.width = static_cast<std::uint32_t>(image.width);
  header.height = static_cast<std::uint32_t>(image.height);
  header.color_type = SPNG_COLOR_TYPE_TRUECOLOR;
  header.bit_depth = 8;
  spng_set_option(context.get(), SPNG_ENCODE_TO_BUFFER, 1);
  spng_set_ihdr(context.get(), &header);
  int status = spng_encode_image(context.get(), image.pixels.data(), image.pixels.size(),
                                 SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
  std::size_t size = 0;
  const std::unique_ptr<void, void (*)(void*)> bytes(
      status == 0 ? spng_get_png_buffer(context.get(), &size, &status) : nullptr, std::free);
  if (!bytes) return fail(broken("encoding a PNG", spng_strerror(status)));
  const auto* begin = static_cast<const std::uint8_t*>(bytes.get());
  return Encoded(begin, begin + size);
}

JpegDecoder::JpegDecoder() : handle_(tjInitDecompress(), tjDestroy) {}

Result<void> JpegDecoder::decode(std::span<const std::uint8_t> file, int parts, Raster& into) {
  int width = 0;
  int height = 0;
  int sampling = 0;
  int space = 0;
  if (tjDecompressHeader3(handle_.get(), file.data(), file.size(), &width, &height, &sampling,
                          &space) != 0) {
    return fail(broken("a JPEG", tjGetErrorStr2(handle_.get())));
  }
  into.shape((width + parts - 1) / parts, (height + parts - 1) / parts);
  if (tjDecompress2(handle_.get(), file.data(), file.size(), into.pixels.data(), into.width, 0,
                    into.height, TJPF_RGB, 0) != 0 &&
      tjGetErrorCode(handle_.get()) == TJERR_FATAL) {
    return fail(broken("a JPEG", tjGetErrorStr2(handle_.get())));
  }
  return {};
}

Result<void> decode_png(std::span<const std::uint8_t> file, Raster& into) {
  const SpngContext context(spng_ctx_new(0), spng_ctx_free);
  // Larger images than any data set has are refused before memory is asked for.
  constexpr std::uint32_t kMostAcross = 32768;
  spng_set_image_limits(context.get(), kMostAcross, kMostAcross);
  spng_ihdr header{};
  std::size_t size = 0;
  int status = spng_set_png_buffer(context.get(), file.data(), file.size());
  if (status == 0) status = spng_get_ihdr(context.get(), &header);
  if (status == 0) status = spng_decoded_image_size(context.get(), SPNG_FMT_RGB8, &size);
  if (status != 0) return fail(broken("a PNG", spng_strerror(status)));
  into.shape(static_cast<int>(header.width), static_cast<int>(header.height));
  status =
      spng_decode_image(context.get(), into.pixels.data(), into.pixels.size(), SPNG_FMT_RGB8, 0);
  if (status != 0) return fail(broken("a PNG", spng_strerror(status)));
  return {};
}

std::string png_decoder_name() {
  return fmt::format("libspng {}", spng_version_string());
}

}  // namespace steelyard::probe
