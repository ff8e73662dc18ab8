// The figures of one node that the stages of the data path share, read once from the request, and
// the stages themselves.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "feed/feed.h"

namespace steelyard::feed {

struct Path {
  const facts::Job& job;
  const facts::Machine& machine;
  const facts::HostConstants& constants;

  std::int64_t ranks = 1;    // processes on this node: one per GPU used
  std::int64_t workers = 0;  // loader processes per rank
  // How often ranks of a node load one sample that the job consumes: ranks that split one copy of
  // the model need the same sample (all tensor and context ranks; first and last pipeline stage).
  std::int64_t loads = 1;
  // The same for storage: ranks of one replica on one node share a read through the page cache.
  std::int64_t storage_reads = 1;
  // Loader processes per rank that find a core; real, because ranks share cores.
  double running_workers = 0.0;
  double running_parents = 1.0;   // 1, less when there are fewer cores than ranks
  std::optional<double> cores{};  // that the workers of the node share
  std::string cores_note;
  bool first_epoch = false;      // no cache holds anything yet
  std::optional<Bytes> stored;   // one sample on storage
  Bytes sample;                  // one sample in host memory, ready for the GPU
  Bytes handed_over;             // by the workers: `sample`, or `stored` when the GPU decodes
  Bytes copied;                  // to the GPU: the same, or what the host makes of it
  std::optional<Bytes> dataset;  // on storage
  Bytes free_for_page_cache;
  Bytes loaders{}, batches{}, pinned{};  // of the host while it trains
  // Of the GPUs of the node, in samples that the job consumes; nothing: as many as come.
  std::optional<SamplesPerSecond> needed{};
};

// Errors: missing_value when a key that plan/resolve.h fills is absent.
[[nodiscard]] Result<Path> path_of(const Request& request);
// The same path with other loaders, or in its first epoch.
[[nodiscard]] Path with_loaders(Path path, std::int64_t workers);
[[nodiscard]] Path in_first_epoch(Path path);

// A stage, and whether samples pass through it at all: `stage.can` without a value means "unknown"
// when used, "not on the path" otherwise.
struct Station {
  facts::FeedStage stage;
  bool used = true;
  double seconds = 0.0;  // storage: of one sample that the job consumes, on the node's storage
  double latency = 0.0;  // storage: that a worker waits for a sample besides
};

using Stations = std::array<Station, 5>;  // storage, read, decode, assemble, host-to-device

// The stages of data.loader's threads; only where the constants hold its profile.
struct ThreadedLoader {
  Stations stations;
};
[[nodiscard]] ThreadedLoader threaded(const Path& path);

// Rates are of samples that the job consumes, per node.
[[nodiscard]] Station storage(const Path& path);
[[nodiscard]] Station read(const Path& path);
[[nodiscard]] Station decode(const Path& path);
[[nodiscard]] Station assemble(const Path& path);
[[nodiscard]] Station host_to_device(const Path& path);

// What a worker computes for one sample, putting it into its batch being a part of that, what the
// rank's own process does with it, and its copy to the GPU; a part that is unknown or not on the
// path takes no time.
[[nodiscard]] Seconds worker_seconds(const Path& path);
[[nodiscard]] Seconds collate_seconds(const Path& path);
[[nodiscard]] Seconds assemble_seconds(const Path& path);
[[nodiscard]] Seconds copy_seconds(const Path& path);
// From one sample handed over to the next, by a rank: its work, and what it waits for its workers.
[[nodiscard]] Seconds handing_over(const Path& path);

// Several sockets: the link between two of them one way, what it takes for one loaded sample, and
// what crosses at that pace of the job.
[[nodiscard]] BytesPerSecond socket_link(const Path& path);
[[nodiscard]] Seconds socket_seconds(const Path& path);
[[nodiscard]] facts::NumaPlan numa(const Path& path, std::optional<SamplesPerSecond> rate);

// One sample read from the page cache by one worker: the copy, and the calls when it is a file.
[[nodiscard]] std::optional<Seconds> read_seconds(const Path& path);

[[nodiscard]] inline bool is_synthetic(const Path& path) {
  return path.job.data.kind == facts::DataKind::synthetic;
}

// "1 rank", "8 ranks".
[[nodiscard]] inline std::string counted(std::int64_t count, const char* noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

}  // namespace steelyard::feed
