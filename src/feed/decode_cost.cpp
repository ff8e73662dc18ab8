#include "feed/decode_cost.h"

#include <fmt/format.h>

#include "base/format.h"
#include "feed/picture_cost.h"

namespace steelyard::feed {
namespace {

// The shape of a published decode rate without its stored size: images as large as the job's.
std::optional<Bytes> jpeg_bytes(const Path& path, std::string& note) {
  if (path.stored) return path.stored;
  const auto& size = path.job.train.image_size;
  if (size.size() != 2) return std::nullopt;
  note = "stored size taken from train.image_size; ";
  const double pixels = static_cast<double>(size[0]) * static_cast<double>(size[1]);
  return Bytes(checked_round(pixels * path.constants.jpeg_bytes_per_pixel));
}

// By the machine's own decoder where it was measured and the picture's size is known. libjpeg-turbo
// is what Pillow calls; resizing, cropping and normalising take as much again.
std::optional<DecodeCost> measured_picture(const Path& path, const char* work) {
  const facts::HostDecodeModel* model = path.machine.host.rates.model_of(work);
  const std::optional<PictureSize> size = picture_size(path);
  if (model == nullptr || !size) return std::nullopt;
  const Seconds decode = model->per_byte * size->bytes + model->per_pixel * size->pixels();
  return DecodeCost{
      decode * path.constants.image_transform.value(),
      fmt::format("{} of {} with about {} pixels by the machine's measured rates, "
                  "decoded and transformed",
                  work, to_text(*path.stored), grouped(checked_round(size->pixels())))};
}

DecodeCost jpeg(const Path& path) {
  if (auto measured = measured_picture(path, "jpeg")) return *std::move(measured);
  std::string note;
  const std::optional<Bytes> bytes = jpeg_bytes(path, note);
  if (!bytes || path.constants.jpeg_bytes_per_pixel <= 0.0) {
    return {std::nullopt, "set data.bytes_per_sample or data.decode_seconds"};
  }
  const std::optional<PictureSize> size = picture_size(path);
  const double pixels = size ? size->pixels() : bytes->real() / path.constants.jpeg_bytes_per_pixel;
  const double decode = path.constants.jpeg_seconds_per_byte * bytes->real() +
                        path.constants.jpeg_seconds_per_pixel * pixels;
  return {Seconds(decode * path.constants.image_transform.value()),
          fmt::format("{}JPEG of {} with about {} pixels, decoded and transformed", note,
                      to_text(*bytes), grouped(checked_round(pixels)))};
}

DecodeCost video(const Path& path) {
  const auto& frames = path.job.train.frames;
  if (!frames) {
    const auto found = path.constants.decode_seconds.find(std::string_view("video"));
    if (found == path.constants.decode_seconds.end()) return {std::nullopt, "set train.frames"};
    return {Seconds(found->second),
            "a clip of 10 frames at a random position, train.frames not set"};
  }
  const double decoded =
      path.constants.video_frames_between_keys / 2.0 + static_cast<double>(*frames);
  return {Seconds(decoded * path.constants.video_seconds_per_frame),
          fmt::format("{} frames at a random position: half the distance between key frames is "
                      "decoded before them, 1080p H.264 assumed",
                      *frames)};
}

DecodeCost from_tables(const Path& path, facts::DataKind kind) {
  const facts::HostConstants& constants = path.constants;
  const std::string_view name = facts::name_of(kind);
  if (const auto found = constants.decode_seconds_per_byte.find(name);
      found != constants.decode_seconds_per_byte.end()) {
    if (!path.stored) return {std::nullopt, "set data.bytes_per_sample or data.decode_seconds"};
    const bool image = kind == facts::DataKind::png;
    const double transform = image ? constants.image_transform.value() : 1.0;
    return {Seconds(found->second * path.stored->real() * transform),
            fmt::format("{} of {}{}", name, to_text(*path.stored),
                        image ? ", decoded and transformed" : "")};
  }
  if (const auto found = constants.decode_seconds.find(name);
      found != constants.decode_seconds.end()) {
    return {Seconds(found->second), fmt::format("a usual sample of kind {}", name)};
  }
  return {std::nullopt,
          fmt::format("no decode cost is known for {}: set data.decode_seconds", name)};
}

// Costs that are known of a picture; a sample with text may hold several. By its bytes all are
// counted already.
DecodeCost each_picture(const Path& path, DecodeCost cost) {
  const std::int64_t pictures = path.job.train.images.value_or(1);
  if (!cost.seconds || path.stored || pictures == 1) return cost;
  cost.seconds = *cost.seconds * static_cast<double>(pictures);
  cost.note += fmt::format("; {} pictures a sample", pictures);
  return cost;
}

}  // namespace

DecodeCost decode_cost(const Path& path) {
  const facts::DataKeys& data = path.job.data;
  if (data.decode_seconds) return {Seconds(*data.decode_seconds), "data.decode_seconds"};
  if (!data.kind) return {std::nullopt, "set data.kind or data.decode_seconds"};
  switch (*data.kind) {
    case facts::DataKind::jpeg: return each_picture(path, jpeg(path));
    case facts::DataKind::png:
      if (auto measured = measured_picture(path, "png")) return *std::move(measured);
      return each_picture(path, from_tables(path, *data.kind));
    case facts::DataKind::video: return video(path);
    default: return from_tables(path, *data.kind);
  }
}

}  // namespace steelyard::feed
