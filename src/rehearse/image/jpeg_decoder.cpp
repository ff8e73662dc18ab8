// JPEG by libjpeg-turbo's own interface: unlike TurboJPEG's it can skip rows and columns. Of most
// files the Huffman codes are read by HuffmanScan, put in place of libjpeg's own reader.
#include <csetjmp>
#include <cstdio>
#include <utility>
#include <vector>
// after <cstdio>, which it needs
#include <jerror.h>
#include <jpeglib.h>
// after <jpeglib.h>: where an object of libjpeg keeps its reader of codes
extern "C" {
#include <jpegint.h>
}

#include "rehearse/image/decoder.h"
#include "rehearse/image/huffman_scan.h"

namespace steelyard::rehearse {
namespace {

// Every block of 8 x 8 pixels costs a bit at least: a few broken bytes cannot claim much memory.
constexpr std::int64_t kMostPixelsPerByte = 64 * 8;

struct ErrorManager {
  jpeg_error_mgr base{};
  std::jmp_buf back{};
  char text[JMSG_LENGTH_MAX] = {};
};

ErrorManager& errors_of(j_common_ptr info) {
  return *reinterpret_cast<ErrorManager*>(info->err);
}

[[noreturn]] void leave(j_common_ptr info) {
  ErrorManager& errors = errors_of(info);
  errors.base.format_message(info, errors.text);
  std::longjmp(errors.back, 1);
}

// libjpeg goes on with grey where data is missing or broken, and calls it a warning. What is
// missing is an error here, as in Pillow ("image file is truncated"); the rest is let pass.
void message(j_common_ptr info, int level) {
  if (level >= 0) return;
  ++info->err->num_warnings;
  if (info->err->msg_code == JWRN_HIT_MARKER || info->err->msg_code == JWRN_JPEG_EOF) leave(info);
}

void nothing(j_decompress_ptr) {}

boolean end_of_bytes(j_decompress_ptr info) {
  info->err->msg_code = JERR_INPUT_EOF;
  leave(reinterpret_cast<j_common_ptr>(info));
}

void skip_bytes(j_decompress_ptr info, long count) {
  if (count <= 0) return;
  if (static_cast<std::size_t>(count) > info->src->bytes_in_buffer) end_of_bytes(info);
  info->src->next_input_byte += count;
  info->src->bytes_in_buffer -= static_cast<std::size_t>(count);
}

// In place of libjpeg's own reader of an MCU.
boolean read_by_scan(j_decompress_ptr info, JBLOCKROW* blocks) {
  if (static_cast<HuffmanScan*>(info->client_data)->next(blocks)) return TRUE;
  info->err->msg_code = JWRN_HUFF_BAD_CODE;
  leave(reinterpret_cast<j_common_ptr>(info));
}

class JpegDecoder final : public ImageDecoder {
 public:
  explicit JpegDecoder(CodeReader reader) : reader_(reader) {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = leave;
    errors_.base.emit_message = message;
    source_.init_source = nothing;
    source_.fill_input_buffer = end_of_bytes;
    source_.skip_input_data = skip_bytes;
    source_.resync_to_restart = jpeg_resync_to_restart;
    source_.term_source = nothing;
    if (setjmp(errors_.back) == 0) {
      jpeg_create_decompress(&info_);
      created_ = true;
      info_.src = &source_;
    }
  }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;
  ~JpegDecoder() override { jpeg_destroy_decompress(&info_); }

  OrFlaw<ImageSize> open(std::span<const std::uint8_t> bytes) override;
  OrFlaw<PixelRegion> start(const Box& box, int shrink) override;
  OrFlaw<void> row(std::uint8_t* pixels) override;
  void finish() override {
    if (created_) jpeg_abort_decompress(&info_);
  }
  [[nodiscard]] bool can_shrink() const override { return true; }

 private:
  // The functions between setjmp and longjmp hold nothing that has a destructor.
  bool read_head(const std::uint8_t* data, std::size_t size);
  bool begin(bool by_scan, PixelRegion& region);
  bool read_row(std::uint8_t* pixels);
  bool open_again();
  bool read_again(std::uint8_t* pixels);
  std::unexpected<Flaw> flaw() {
    finish();
    return std::unexpected<Flaw>(std::string("JPEG: ") + errors_.text);
  }

  ErrorManager errors_;
  jpeg_source_mgr source_{};
  jpeg_decompress_struct info_{};
  CodeReader reader_;
  HuffmanScan scan_;
  bool by_scan_ = false;  // the codes are read by scan_
  // What it takes to begin again.
  std::span<const std::uint8_t> bytes_;
  Box box_;
  int shrink_ = 1, rows_ = 0;
  bool created_ = false;
  bool cmyk_ = false, inverted_ = false;
};

bool JpegDecoder::read_head(const std::uint8_t* data, std::size_t size) {
  if (setjmp(errors_.back) != 0) return false;
  source_.next_input_byte = data;
  source_.bytes_in_buffer = size;
  info_.err->num_warnings = 0;
  return jpeg_read_header(&info_, TRUE) == JPEG_HEADER_OK;
}

OrFlaw<ImageSize> JpegDecoder::open(std::span<const std::uint8_t> bytes) {
  if (!created_) return std::unexpected<Flaw>("libjpeg cannot start: is memory short?");
  bytes_ = bytes;
  if (!read_head(bytes.data(), bytes.size())) return flaw();
  const std::int64_t pixels = std::int64_t{info_.image_width} * info_.image_height;
  if (pixels > kMostPixels) {
    finish();
    return std::unexpected<Flaw>("JPEG: more pixels than are accepted");
  }
  ImageSize size{.width = static_cast<int>(info_.image_width),
                 .height = static_cast<int>(info_.image_height)};
  // Progressive: two bytes for every coefficient of every component, until the last scan is read.
  if (info_.progressive_mode != 0) {
    if (pixels > static_cast<std::int64_t>(bytes.size()) * kMostPixelsPerByte) {
      finish();
      return std::unexpected<Flaw>("JPEG: more pixels than the file can hold");
    }
    size.held = pixels * 2 * info_.num_components;
  }
  cmyk_ = info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK;
  inverted_ = info_.saw_Adobe_marker != 0;
  return size;
}

bool JpegDecoder::begin(bool by_scan, PixelRegion& region) {
  if (setjmp(errors_.back) != 0) return false;
  const Box& box = box_;
  info_.out_color_space = cmyk_ ? JCS_CMYK : JCS_EXT_RGBX;
  info_.scale_num = 1;
  info_.scale_denom = static_cast<unsigned>(shrink_);
  by_scan_ = false;
  jpeg_start_decompress(&info_);
  if (by_scan && scan_.start(info_)) {
    info_.client_data = &scan_;
    info_.entropy->decode_mcu = read_by_scan;
    by_scan_ = true;
  }
  const auto part = static_cast<unsigned>(shrink_);
  JDIMENSION left = static_cast<JDIMENSION>(box.left) / part;
  JDIMENSION right = (static_cast<JDIMENSION>(box.left + box.width) + part - 1) / part;
  if (right > info_.output_width) right = info_.output_width;
  JDIMENSION width = right - left;
  // One more pixel each way: chroma between two blocks is smoothed with its neighbour, and the
  // column at the edge of what is decoded has none. Fewer than the whole width: widened to whole
  // blocks to the left by libjpeg.
  if (left > 0) --left, ++width;
  if (left + width < info_.output_width) ++width;
  if (width < info_.output_width) jpeg_crop_scanline(&info_, &left, &width);
  const JDIMENSION top = static_cast<JDIMENSION>(box.top) / part;
  JDIMENSION bottom = (static_cast<JDIMENSION>(box.top + box.height) + part - 1) / part;
  if (bottom > info_.output_height) bottom = info_.output_height;
  if (top > 0 && jpeg_skip_scanlines(&info_, top) != top) return false;
  region = {.left = static_cast<int>(left),
            .top = static_cast<int>(top),
            .width = static_cast<int>(info_.output_width),
            .height = static_cast<int>(bottom - top)};
  return true;
}

OrFlaw<PixelRegion> JpegDecoder::start(const Box& box, int shrink) {
  PixelRegion region;
  box_ = box;
  shrink_ = shrink;
  rows_ = 0;
  if (begin(reader_ == CodeReader::fast, region)) return region;
  // What is above the part is irregular: libjpeg's own reader says what to make of it.
  if (!by_scan_ || !open_again() || !begin(false, region)) return flaw();
  return region;
}

bool JpegDecoder::read_row(std::uint8_t* pixels) {
  if (setjmp(errors_.back) != 0) return false;
  JSAMPROW rows[1] = {pixels};
  if (jpeg_read_scanlines(&info_, rows, 1) != 1) return false;
  ++rows_;
  return true;
}

bool JpegDecoder::open_again() {
  jpeg_abort_decompress(&info_);
  return read_head(bytes_.data(), bytes_.size());
}

// The next row by libjpeg's own reader, after all before it.
bool JpegDecoder::read_again(std::uint8_t* pixels) {
  PixelRegion region;
  if (!open_again() || !begin(false, region)) return false;
  for (const int before = std::exchange(rows_, 0); rows_ < before;) {
    if (!read_row(pixels)) return false;
  }
  return read_row(pixels);
}

// Adobe's files hold the inks inverted: 255 is none of it.
void from_cmyk(std::uint8_t* pixels, std::size_t count, bool inverted) {
  for (std::size_t i = 0; i < count; ++i, pixels += 4) {
    const int k = inverted ? pixels[3] : 255 - pixels[3];
    for (int c = 0; c < 3; ++c) {
      const int ink = inverted ? pixels[c] : 255 - pixels[c];
      pixels[c] = static_cast<std::uint8_t>(ink * k / 255);
    }
  }
}

OrFlaw<void> JpegDecoder::row(std::uint8_t* pixels) {
  if (!read_row(pixels) && (!by_scan_ || !read_again(pixels))) return flaw();
  if (cmyk_) from_cmyk(pixels, info_.output_width, inverted_);
  return {};
}

}  // namespace

std::unique_ptr<ImageDecoder> make_jpeg_decoder(CodeReader reader) {
  return std::make_unique<JpegDecoder>(reader);
}

}  // namespace steelyard::rehearse
