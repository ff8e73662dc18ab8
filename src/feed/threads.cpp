// A loader of data.loader: threads of one process between bounded buffers, so each stage goes at
// its own pace and the slowest decides.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "feed/decode_cost.h"
#include "feed/path.h"
#include "feed/picture_cost.h"

namespace steelyard::feed {
namespace {

Station not_on_path(const char* name, const char* why) {
  Station station;
  station.stage.name = name;
  station.stage.note = why;
  station.used = false;
  return station;
}

bool is_picture(const Path& path) {
  return path.job.data.kind == facts::DataKind::jpeg || path.job.data.kind == facts::DataKind::png;
}

bool is_file(const Path& path) {
  return path.job.data.layout.value_or(facts::DataLayout::files) == facts::DataLayout::files;
}

double hardware_threads(const Path& path) {
  const facts::Host& host = path.machine.host;
  if (host.threads) return static_cast<double>(std::max<std::int64_t>(1, *host.threads));
  if (host.cores) return static_cast<double>(std::max<std::int64_t>(1, *host.cores));
  return static_cast<double>(path.ranks * std::max<std::int64_t>(1, path.workers)) + 1.0;
}

// Of what one thread alone moves, the share that each moves while all hardware threads do: by the
// measured copies of the node with most threads.
double crowded_share(const facts::HostRates& rates) {
  const facts::HostMemoryRate* one = nullptr;
  const facts::HostMemoryRate* most = nullptr;
  for (const facts::HostMemoryRate& rate : rates.memory) {
    if (rate.core_node != rate.memory_node || rate.copy.value() <= 0.0) continue;
    if (rate.threads == 1) one = &rate;
    if (most == nullptr || rate.threads > most->threads) most = &rate;
  }
  if (one == nullptr || most == nullptr) return 1.0;
  const double each = most->copy.value() / static_cast<double>(most->threads);
  return std::min(1.0, each / one->copy.value());
}

// Seconds of a sample: of one thread alone; while every hardware thread is busy.
struct Cost {
  double alone = 0.0, crowded = 0.0;
  [[nodiscard]] double at(double crowd) const { return alone + crowd * (crowded - alone); }
};

Cost moving(const Path& path, BytesPerSecond rate, Seconds beside) {
  const double seconds = (*path.stored / rate).value();
  const double share = crowded_share(path.machine.host.rates);
  return {seconds + beside.value(), seconds / share + beside.value()};
}

// Of the reading thread.
std::optional<Cost> reading(const Path& path) {
  if (!path.stored) return std::nullopt;
  const facts::LoaderProfile& loader = *path.constants.loader;
  return moving(path, cached_read_rate(path),
                is_file(path) ? loader.read_file : loader.read_record);
}

// From one record to the next where nothing is decoded: reading and copying go through one memory,
// and what the reading thread writes lies in another core's cache. With a file for each record the
// reading thread, the slower of both, opens and closes it besides.
std::optional<Seconds> handing_on(const Path& path, std::int64_t workers) {
  if (is_picture(path) || path.job.data.decode_seconds || !path.stored) return std::nullopt;
  const auto measured = record_seconds(path.machine.host.rates, *path.stored, workers);
  if (!measured) return std::nullopt;
  const facts::LoaderProfile& loader = *path.constants.loader;
  return *measured + (is_file(path) ? loader.read_file - loader.read_record : Seconds());
}

struct Making {
  std::optional<Cost> cost;
  std::string note;
};

Making copying(const Path& path) {
  if (!path.stored) return {{}, "set data.bytes_per_sample"};
  return {moving(path, thread_copy_rate(path), path.constants.loader->make_record),
          "copied into its batch"};
}

Making making(const Path& path) {
  const facts::LoaderProfile& loader = *path.constants.loader;
  if (path.job.data.decode_seconds) {
    const double seconds = *path.job.data.decode_seconds;
    return {Cost{seconds, seconds}, "data.decode_seconds"};
  }
  if (!is_picture(path)) return copying(path);
  const bool jpeg = path.job.data.kind == facts::DataKind::jpeg;
  const std::optional<PictureSize> size = picture_size(path);
  if (size) {
    const std::string& work = jpeg ? loader.jpeg_work : loader.png_work;
    const auto one = measured_seconds(path.machine.host.rates, work, *size, Crew::one);
    const auto all = measured_seconds(path.machine.host.rates, work, *size, Crew::all);
    if (one) {
      const Seconds crowded = all.value_or(*one);
      return {Cost{(*one + loader.make_record).value(), (crowded + loader.make_record).value()},
              fmt::format("{} of {} x {}, measured", work, size->height, size->width)};
    }
  }
  const DecodeCost whole = decode_cost(path);
  if (!whole.seconds) return {{}, whole.note};
  const Ratio share = jpeg ? loader.jpeg_part_decoded : loader.png_part_decoded;
  const double part = (*whole.seconds * share.value() + loader.make_record).value();
  return {Cost{part, part}, whole.note + ", a part of it"};
}

}  // namespace

ThreadedLoader threaded(const Path& path) {
  ThreadedLoader loader;
  loader.stations = {storage(path), not_on_path("read", "unknown: set data.bytes_per_sample"),
                     not_on_path("decode", "unknown"),
                     not_on_path("assemble",
                                 "not on the path: samples are written where they lie "
                                 "in their batch"),
                     path.constants.loader->alone
                         ? not_on_path("host-to-device",
                                       "not on the path: accelerators are paced, nothing is copied")
                         : host_to_device(path)};
  Station& read = loader.stations[1];
  Station& decode = loader.stations[2];
  read.used = decode.used = true;
  const std::optional<Cost> reads = reading(path);
  const Making made = making(path);
  const double threads = hardware_threads(path);
  const auto workers = static_cast<double>(std::max<std::int64_t>(1, path.workers) * path.ranks);
  // Between one busy hardware thread and all of them, the time of a sample is taken to grow evenly.
  // The reading thread is busy while it keeps up with the others.
  double busy = workers;
  if (reads && made.cost) busy += std::min(1.0, reads->alone * workers / made.cost->alone);
  const double crowd = threads > 1.0 ? std::clamp((busy - 1.0) / (threads - 1.0), 0.0, 1.0) : 1.0;
  if (reads) {
    const double seconds = reads->at(crowd);
    read.stage.can = SamplesPerSecond(1.0 / seconds);
    read.stage.note = fmt::format("{} per sample in one thread: the request and one copy at {}",
                                  to_text(Seconds(seconds)), to_text(cached_read_rate(path)));
    if (const auto both = handing_on(path, static_cast<std::int64_t>(workers))) {
      read.stage.can = SamplesPerSecond(1.0 / both->value());
      read.stage.note = fmt::format("{} per sample, measured: one thread reads, {} copy",
                                    to_text(*both), workers);
    }
  }
  if (!made.cost) {
    decode.stage.note = "unknown: " + made.note;
    return loader;
  }
  const double work = made.cost->at(crowd);
  // All hardware threads together also do what the reading thread does.
  const double all = made.cost->crowded + (reads ? reads->crowded : 0.0);
  decode.stage.can = SamplesPerSecond(std::min(workers / work, threads / all));
  decode.stage.note =
      fmt::format("{} on one thread ({}); {} on {:.0f} hardware threads", to_text(Seconds(work)),
                  made.note, counted(static_cast<std::int64_t>(workers), "thread"), threads);
  return loader;
}

}  // namespace steelyard::feed
