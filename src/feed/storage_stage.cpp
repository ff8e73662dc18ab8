// Where the bytes come from after the first epoch: storage, the page cache or a cache of the job.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "feed/page_cache.h"
#include "feed/path.h"
#include "feed/picture_cost.h"

namespace steelyard::feed {
namespace {

using facts::DataCache;

struct ReadRate {
  std::optional<BytesPerSecond> rate;
  std::optional<double> operations;  // per second
  std::string note;
  double latency = 0.0;  // seconds
};

// What a node gets of a share that all nodes of the job read at once: no more than its own link
// carries, no more than its part of what the share gives them together.
template <class Rate>
std::optional<Rate> part_of_share(const facts::Known<Rate>& own, const facts::Known<Rate>& shared,
                                  std::int64_t nodes, bool& bound) {
  std::optional<Rate> rate;
  if (own) rate = *own;
  if (!shared) return rate;
  const Rate part = *shared * (1.0 / static_cast<double>(std::max<std::int64_t>(1, nodes)));
  bound = !rate || part < *rate;
  return bound ? part : rate;
}

// A storage named "network" has no sensible constant: it may be a file server or a flash array.
ReadRate rate_and_note(const Path& path) {
  const std::string location = path.job.data.location.value_or("nvme");
  const auto& all = path.machine.storage;
  const auto found =
      std::ranges::find_if(all, [&](const facts::Storage& s) { return s.name == location; });
  const std::int64_t nodes = path.job.machine.nodes;
  if (found != all.end() && (found->read || found->shared_read)) {
    bool divided = false, calls_divided = false;
    const auto rate = part_of_share(found->read, found->shared_read, nodes, divided);
    const auto& decides = divided ? found->shared_read : found->read;
    const std::string why = decides.from == facts::Provenance::given      ? ", as given"
                            : decides.from == facts::Provenance::measured ? ", measured"
                                                                          : "";
    const auto operations =
        part_of_share(found->read_operations_per_second, found->shared_read_operations_per_second,
                      nodes, calls_divided);
    const std::string words =
        divided ? fmt::format("{}: {}{} for all nodes, {} for each of {}", location,
                              to_text(*found->shared_read), why, to_text(*rate), nodes)
                : fmt::format("{}: {}{}", location, to_text(*rate), why);
    return {rate, operations, words};
  }
  if (location == "network") {
    return {std::nullopt, std::nullopt,
            "the rate of the network storage is unknown: set machine.storage_gb_per_s"};
  }
  return {path.constants.storage_read, std::nullopt,
          fmt::format("{}: rate unknown, one NVMe drive of {} assumed (machine.storage_gb_per_s)",
                      location, to_text(path.constants.storage_read))};
}

ReadRate rate_of_location(const Path& path) {
  ReadRate found = rate_and_note(path);
  const auto& latencies = path.constants.storage_latency;
  const auto latency = latencies.find(path.job.data.location.value_or("nvme"));
  if (latency != latencies.end()) found.latency = latency->second;
  return found;
}

// One sample at a time from a position of its own: files always, others when samples are shuffled.
bool is_random(const facts::DataKeys& data) {
  return data.layout.value_or(facts::DataLayout::files) == facts::DataLayout::files ||
         (data.layout == facts::DataLayout::memmap && data.shuffle == facts::Shuffle::sample);
}

// DS-Analyzer's formula per sample: hits at memory rate, misses at storage rate. Each worker asks
// for one sample at a time, so no more than all workers together wait for the storage.
Station mixed(const Path& path, const ReadRate& from, Ratio hits, std::string note, Bytes ram) {
  const double miss = 1.0 - hits.value();
  const double bytes = path.stored->real();
  Station station;
  station.stage = {.name = "storage", .can = {}, .needed = {}, .ram = ram, .note = {}};
  station.stage.note = std::move(note);
  double seconds = bytes * hits.value() / memory_rate(path).value();
  if (miss > 0.0) {
    if (!from.rate || from.rate->value() <= 0.0) return station;
    double from_storage = bytes / from.rate->value();
    if (is_random(path.job.data)) {
      if (from.operations && *from.operations > 0.0) {
        from_storage = std::max(from_storage, 1.0 / *from.operations);
      }
      station.latency = miss * from.latency;
    }
    seconds += miss * from_storage;
  }
  const double reads = static_cast<double>(path.storage_reads);
  station.seconds = seconds * reads;
  const auto waiting = static_cast<double>(path.ranks * std::max<std::int64_t>(1, path.workers));
  const double one = station.latency * static_cast<double>(path.loads) + station.seconds;
  station.stage.can = SamplesPerSecond(std::min(1.0 / station.seconds, waiting / one));
  return station;
}

Station not_needed(const char* why) {
  Station station;
  station.stage.name = "storage";
  station.stage.note = why;
  station.used = false;
  return station;
}

}  // namespace

Station storage(const Path& path) {
  const DataCache cache = path.job.data.cache;
  if (is_synthetic(path)) return not_needed("not on the path: synthetic data");
  const bool kept = cache == DataCache::ram || cache == DataCache::ram_encoded;
  if (kept && !path.first_epoch) {
    return not_needed("not on the path after the first epoch: the dataset is kept in memory");
  }
  if (!path.stored) {
    Station station = not_needed("unknown: set data.bytes_per_sample");
    station.used = true;
    return station;
  }
  const ReadRate from = rate_of_location(path);
  if (cache == DataCache::none || path.first_epoch) {
    return mixed(path, from, Ratio(0.0), from.note + "; nothing cached", Bytes());
  }
  if (!path.dataset) {
    return mixed(path, from, Ratio(0.0),
                 from.note + "; data.samples not given, so nothing is expected in the page cache",
                 Bytes());
  }
  if (path.free_for_page_cache.value() == 0 && !path.machine.host.memory) {
    return mixed(path, from, Ratio(0.0),
                 from.note +
                     "; the host's memory is unknown, so nothing is expected in the page "
                     "cache (machine.ram_gib)",
                 Bytes());
  }
  const CacheHits hits =
      page_cache_hits(path.free_for_page_cache, *path.dataset, path.job.data.shuffle);
  return mixed(path, from, hits.served, from.note + "; after the first epoch: " + hits.why,
               std::min(path.free_for_page_cache, *path.dataset));
}

}  // namespace steelyard::feed
