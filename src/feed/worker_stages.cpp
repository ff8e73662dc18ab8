// The stages that run in loader processes (read, decode) and in the process of the rank (assemble).
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/power_of_two.h"
#include "feed/decode_cost.h"
#include "feed/path.h"

namespace steelyard::feed {
namespace {

using facts::DataCache;

Station unused(const char* name, const char* why) {
  return {{.name = name, .can = std::nullopt, .needed = {}, .ram = {}, .note = why}, false};
}

Station unknown(const char* name, std::string why, Bytes ram) {
  return {{.name = name, .can = std::nullopt, .needed = {}, .ram = ram, .note = std::move(why)}};
}

Bytes loaders_memory(const Path& path) {
  return path.constants.loader_worker * checked_multiply(path.ranks, path.workers);
}

// What the rank's own process spends on a sample that a worker hands over.
Seconds assemble_seconds(const Path& path) {
  return path.constants.assemble_per_byte * path.handed_over.real();
}

// W workers of one rank. Their hand-overs pass one process, one after the other: with t seconds of
// work and s of hand-over, W workers need t + (W - 1) s for W samples (docs/model/data-path.md).
double rank_rate(double workers, double work, double hand_over) {
  const double waits = std::max(0.0, workers - 1.0) * std::min(hand_over, work);
  return workers / (work + waits);
}

std::string workers_text(const Path& path) {
  if (path.workers == 0) {
    return fmt::format("{}, no loader processes (data.workers = 0), {}",
                       counted(path.ranks, "rank"), path.cores_note);
  }
  return fmt::format("{} x {} on {}: {:.1f} run per rank", counted(path.ranks, "rank"),
                     counted(path.workers, "worker"), path.cores_note, path.running_workers);
}

bool gpu_decodes(const Path& path) {
  return path.job.data.decode == facts::DecodeOn::gpu;
}

}  // namespace

std::optional<Seconds> read_seconds(const Path& path) {
  const facts::HostConstants& constants = path.constants;
  if (path.job.data.cache == DataCache::ram) return path.sample / constants.thread_copy;
  if (!path.stored) return std::nullopt;
  Seconds seconds = *path.stored / constants.thread_copy;
  const bool files =
      path.job.data.layout.value_or(facts::DataLayout::files) == facts::DataLayout::files;
  if (files && path.job.data.cache != DataCache::ram_encoded) seconds += constants.file_read;
  return seconds;
}

Station read(const Path& path) {
  if (is_synthetic(path)) return unused("read", "not on the path: synthetic data");
  const std::optional<Seconds> seconds = read_seconds(path);
  if (!seconds) return unknown("read", "unknown: set data.bytes_per_sample", Bytes());
  if (seconds->value() <= 0.0) return unused("read", "no bytes to copy");
  const double rate = static_cast<double>(path.ranks) * path.running_workers / seconds->value() /
                      static_cast<double>(path.loads);
  return {{.name = "read",
           .can = SamplesPerSecond(rate),
           .needed = {},
           .ram = {},
           .note = fmt::format("{} per sample and worker: system calls and one copy at {}",
                               to_text(*seconds), to_text(path.constants.thread_copy))}};
}

Station decode(const Path& path) {
  if (is_synthetic(path)) return unused("decode", "not on the path: synthetic data");
  if (gpu_decodes(path)) return unused("decode", "done by the GPUs, whose rate is not modelled");
  if (path.job.data.cache == DataCache::ram) {
    return unused("decode", "not on the path after the first epoch: kept decoded in memory");
  }
  const DecodeCost cost = decode_cost(path);
  const Bytes ram = loaders_memory(path);
  if (!cost.seconds) return unknown("decode", "unknown: " + cost.note, ram);
  const double work = cost.seconds->value() + read_seconds(path).value_or(Seconds()).value();
  if (work <= 0.0) return unused("decode", "no work");
  const double rate = static_cast<double>(path.ranks) *
                      rank_rate(path.running_workers, work, assemble_seconds(path).value()) /
                      static_cast<double>(path.loads);
  return {{.name = "decode",
           .can = SamplesPerSecond(rate),
           .needed = {},
           .ram = ram,
           .note = fmt::format("{} on one core ({}), read included; {}", to_text(Seconds(work)),
                               cost.note, workers_text(path))}};
}

Station assemble(const Path& path) {
  if (is_synthetic(path)) return unused("assemble", "not on the path: synthetic data");
  const std::int64_t ahead =
      path.workers == 0
          ? 1
          : checked_multiply(path.workers, std::max<std::int64_t>(1, path.job.data.prefetch));
  const Bytes ram =
      path.sample * std::max<std::int64_t>(1, *path.job.train.micro_batch) * ahead * path.ranks;
  const double seconds = assemble_seconds(path).value();
  if (seconds <= 0.0) {
    return unknown("assemble", "unknown: the size of a sample in host memory is not known", ram);
  }
  const double rate = static_cast<double>(path.ranks) * path.running_parents / seconds /
                      static_cast<double>(path.loads);
  return {{.name = "assemble",
           .can = SamplesPerSecond(rate),
           .needed = {},
           .ram = ram,
           .note = fmt::format("collating and pinning {} per sample in each rank's own process",
                               to_text(path.handed_over))}};
}

Station host_to_device(const Path& path) {
  if (is_synthetic(path)) return unused("host-to-device", "not on the path: synthetic data");
  const bool pin = path.job.data.pin_memory;
  const Bytes batch = path.sample * std::max<std::int64_t>(1, *path.job.train.micro_batch);
  const Bytes ram = pin ? next_power_of_two(batch) * 2 * path.ranks : Bytes();
  if (path.handed_over.value() <= 0) {
    return unknown("host-to-device", "unknown: the size of a sample in host memory is not known",
                   ram);
  }
  const auto& link = path.machine.gpu.host_link;
  const BytesPerSecond copy =
      link ? scaled(*link, path.constants.host_link_share) : path.constants.pcie_copy;
  const double rate = copy.value() * static_cast<double>(path.ranks) / path.handed_over.real() /
                      static_cast<double>(path.loads);
  return {{.name = "host-to-device",
           .can = SamplesPerSecond(rate),
           .needed = {},
           .ram = ram,
           .note = link ? fmt::format("{} x {} ({} of the link)", counted(path.ranks, "GPU"),
                                      to_text(copy), percent(path.constants.host_link_share))
                        : fmt::format("{} x {} (PCIe 4 x16 assumed, the link is unknown)",
                                      counted(path.ranks, "GPU"), to_text(copy))}};
}

}  // namespace steelyard::feed
