// The stages that run in loader processes (read, decode) and in the process of the rank (assemble).
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/power_of_two.h"
#include "facts/host.h"
#include "feed/decode_cost.h"
#include "feed/path.h"
#include "feed/picture_cost.h"

namespace steelyard::feed {
namespace {

using facts::DataCache;

Station station(const char* name, std::optional<SamplesPerSecond> can, Bytes ram,
                std::string note) {
  Station made;
  made.stage.name = name;
  made.stage.can = can;
  made.stage.ram = ram;
  made.stage.note = std::move(note);
  return made;
}

Station unused(const char* name, const char* why) {
  Station made = station(name, std::nullopt, Bytes(), why);
  made.used = false;
  return made;
}

Station unknown(const char* name, std::string why, Bytes ram) {
  return station(name, std::nullopt, ram, std::move(why));
}

// Of a batch from a worker to its rank, for one of its samples, on either side.
Seconds hand_over_seconds(const Path& path) {
  const auto batch = static_cast<double>(std::max<std::int64_t>(1, *path.job.train.micro_batch));
  return path.constants.batch_hand_over * (1.0 / batch);
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

// Kept decoded in memory, once the first epoch is over.
bool is_decoded(const Path& path) {
  return path.job.data.cache == DataCache::ram && !path.first_epoch;
}

// What `steelyard probe` measured are copies: they need no share of a raw rate.
Ratio share_of_link(const Path& path) {
  const bool copies = path.machine.gpu.host_link.from == facts::Provenance::measured;
  return copies ? Ratio(1.0) : path.constants.host_link_share;
}

// Of one GPU, while those behind the same PCIe switch copy too.
BytesPerSecond copy_rate(const Path& path) {
  const auto& link = path.machine.gpu.host_link;
  const BytesPerSecond alone = link ? scaled(*link, share_of_link(path)) : path.constants.pcie_copy;
  return alone * (1.0 / facts::sharers_of_uplink(path.machine, path.ranks));
}

// Copies of all ranks pass the link between sockets, which is slower where it is shared by many.
bool sockets_are_slower(const Path& path) {
  const double copies = (path.copied / copy_rate(path)).value();
  return socket_seconds(path).value() * static_cast<double>(path.ranks) > copies;
}

}  // namespace

std::optional<Seconds> read_seconds(const Path& path) {
  const facts::HostConstants& constants = path.constants;
  if (is_decoded(path)) return path.sample / thread_copy_rate(path);
  if (!path.stored) return std::nullopt;
  Seconds seconds = *path.stored / cached_read_rate(path);
  const bool files =
      path.job.data.layout.value_or(facts::DataLayout::files) == facts::DataLayout::files;
  const bool in_memory = path.job.data.cache == DataCache::ram_encoded && !path.first_epoch;
  if (files && !in_memory) seconds += constants.file_read;
  return seconds;
}

Seconds worker_seconds(const Path& path) {
  if (is_synthetic(path)) return Seconds();
  // A worker also puts its batch together, in shared memory (torch/utils/data/_utils/fetch.py and
  // collate.py); without workers the rank does, and `assemble` counts it.
  Seconds seconds = read_seconds(path).value_or(Seconds());
  if (path.workers > 0) seconds += collate_seconds(path);
  if (gpu_decodes(path) || is_decoded(path)) return seconds;
  return seconds + decode_cost(path).seconds.value_or(Seconds());
}

Seconds collate_seconds(const Path& path) {
  if (is_synthetic(path)) return Seconds();
  const Seconds bytes = path.constants.assemble_per_byte * path.handed_over.real();
  return path.workers == 0 ? bytes : bytes + hand_over_seconds(path);
}

// Tensors lie in shared memory: their rank takes them over by name, whatever their size, and reads
// them only to copy them to page-locked memory.
Seconds assemble_seconds(const Path& path) {
  if (is_synthetic(path)) return Seconds();
  if (path.workers == 0) return collate_seconds(path);
  const bool pins = path.job.data.pin_memory && !facts::computes_on_host(path.machine.gpu);
  const Seconds copy = pins ? path.handed_over / thread_copy_rate(path) : Seconds();
  return hand_over_seconds(path) + copy;
}

Seconds handing_over(const Path& path) {
  const Seconds working = assemble_seconds(path) * (1.0 / path.running_parents);
  if (is_synthetic(path) || path.workers == 0) return working;
  const auto batch = static_cast<double>(std::max<std::int64_t>(1, *path.job.train.micro_batch));
  return working + path.constants.batch_wait * (1.0 / batch);
}

Seconds copy_seconds(const Path& path) {
  if (is_synthetic(path) || facts::computes_on_host(path.machine.gpu)) return Seconds();
  if (sockets_are_slower(path)) return socket_seconds(path) * static_cast<double>(path.ranks);
  return path.copied / copy_rate(path);
}

Station read(const Path& path) {
  if (is_synthetic(path)) return unused("read", "not on the path: synthetic data");
  const std::optional<Seconds> seconds = read_seconds(path);
  if (!seconds) return unknown("read", "unknown: set data.bytes_per_sample", Bytes());
  if (seconds->value() <= 0.0) return unused("read", "no bytes to copy");
  const double rate = static_cast<double>(path.ranks) * path.running_workers / seconds->value() /
                      static_cast<double>(path.loads);
  return station("read", SamplesPerSecond(rate), Bytes(),
                 fmt::format("{} per sample and worker: system calls and one copy at {}",
                             to_text(*seconds), to_text(cached_read_rate(path))));
}

Station decode(const Path& path) {
  if (is_synthetic(path)) return unused("decode", "not on the path: synthetic data");
  if (gpu_decodes(path)) return unused("decode", "done by the GPUs, whose rate is not modelled");
  if (is_decoded(path)) {
    return unused("decode", "not on the path after the first epoch: kept decoded in memory");
  }
  const DecodeCost cost = decode_cost(path);
  const Bytes ram = path.loaders;
  if (!cost.seconds) return unknown("decode", "unknown: " + cost.note, ram);
  const double work = worker_seconds(path).value();
  if (work <= 0.0) return unused("decode", "no work");
  const double rate = static_cast<double>(path.ranks) * path.running_workers / work /
                      static_cast<double>(path.loads);
  return station("decode", SamplesPerSecond(rate), ram,
                 fmt::format("{} on one core ({}), reading and collating included; {}",
                             to_text(Seconds(work)), cost.note, workers_text(path)));
}

Station assemble(const Path& path) {
  if (is_synthetic(path)) return unused("assemble", "not on the path: synthetic data");
  const Bytes ram = path.batches;
  const double seconds = assemble_seconds(path).value();
  if (seconds <= 0.0) {
    return unknown("assemble", "unknown: the size of a sample in host memory is not known", ram);
  }
  const double rate = static_cast<double>(path.ranks) / handing_over(path).value() /
                      static_cast<double>(path.loads);
  return station("assemble", SamplesPerSecond(rate), ram,
                 fmt::format("taking over and pinning {} per sample in each rank's own process",
                             to_text(path.handed_over)));
}

Station host_to_device(const Path& path) {
  if (is_synthetic(path)) return unused("host-to-device", "not on the path: synthetic data");
  if (facts::computes_on_host(path.machine.gpu)) {
    return unused("host-to-device", "not on the path: the job computes on the host");
  }
  const Bytes ram = path.pinned;
  if (path.copied.value() <= 0) {
    return unknown("host-to-device", "unknown: the size of a sample in host memory is not known",
                   ram);
  }
  const BytesPerSecond copy = copy_rate(path);
  const double rate = static_cast<double>(path.ranks) / copy_seconds(path).value() /
                      static_cast<double>(path.loads);
  const bool measured = path.machine.gpu.host_link.from == facts::Provenance::measured;
  std::string note =
      measured ? fmt::format("{} x {} (measured)", counted(path.ranks, "GPU"), to_text(copy))
      : path.machine.gpu.host_link
          ? fmt::format("{} x {} ({} of the link)", counted(path.ranks, "GPU"), to_text(copy),
                        percent(path.constants.host_link_share))
          : fmt::format("{} x {} (PCIe 4 x16 assumed, the link is unknown)",
                        counted(path.ranks, "GPU"), to_text(copy));
  const double sharers = facts::sharers_of_uplink(path.machine, path.ranks);
  if (sharers > 1.0) note += fmt::format(", {:.0f} GPUs share a switch's lanes", sharers);
  if (sockets_are_slower(path)) {
    note += fmt::format("; limited by the {} between sockets{}", to_text(socket_link(path)),
                        path.job.machine.numa_binding ? "" : ", ranks are not bound");
  }
  return station("host-to-device", SamplesPerSecond(rate), ram, note);
}

}  // namespace steelyard::feed
