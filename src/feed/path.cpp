#include "feed/path.h"

#include <fmt/format.h>

#include <algorithm>

namespace steelyard::feed {
namespace {

Error broken(ErrorCode code, const char* subject, const char* found, const char* accepted) {
  return Error{.code = code,
               .subject = subject,
               .found = found,
               .accepted = accepted,
               .hint = "",
               .file = "",
               .line = std::nullopt};
}

struct Cores {
  std::optional<double> count;
  std::string note;
};

Cores cores_of(const facts::Host& host) {
  if (host.cores) return {static_cast<double>(*host.cores), fmt::format("{} cores", *host.cores)};
  if (host.threads) {
    return {static_cast<double>(*host.threads) / 2.0,
            fmt::format("{} hardware threads, two per core assumed", *host.threads)};
  }
  return {std::nullopt, "the host's cores are unknown: each worker is assumed to have one"};
}

// The rank's own process keeps a core busy while the GPU computes (it launches kernels and spins in
// cudaStreamSynchronize) and while it hands a sample over, and rests while it waits for data. With
// t seconds of a worker per sample, s of hand-over and c of the GPU, X samples per second take
// X (t + s + c) cores. What the ranks leave is for the workers.
void share_cores(Path& path) {
  if (path.constants.loader) return;  // no process of a rank beside it; threads say for themselves
  const Cores cores = cores_of(path.machine.host);
  path.cores_note = cores.note;
  const auto ranks = static_cast<double>(path.ranks);
  const auto workers = static_cast<double>(path.workers);
  path.running_workers = std::max(1.0, workers);
  if (!cores.count) return;
  path.running_parents = std::min(1.0, *cores.count / ranks);
  if (path.workers == 0) {
    path.running_workers = path.running_parents;
    return;
  }
  const double work = worker_seconds(path).value();
  const double hand_over = assemble_seconds(path).value();
  const double needed = path.needed ? path.needed->value() * static_cast<double>(path.loads) : 0.0;
  const double on_gpu = needed > 0.0 ? ranks / needed : 0.0;
  const double all = work + hand_over + on_gpu;
  double left = *cores.count;
  if (all > 0.0) {
    double rate = *cores.count / all;
    if (needed > 0.0) rate = std::min(rate, needed);
    if (work > 0.0) rate = std::min(rate, ranks * workers / work);
    left -= std::min(ranks, rate * (hand_over + on_gpu));
  }
  path.cores = std::max(left, std::min(1.0, *cores.count));
  path.running_workers = std::min(workers, *path.cores / ranks);
}

void count_loads(Path& path) {
  const facts::ParallelKeys& parallel = path.job.parallel;
  const auto positive = [](std::int64_t n) { return std::max<std::int64_t>(1, n); };
  const std::int64_t stage =
      checked_multiply(positive(parallel.tensor), positive(parallel.context));
  path.loads = checked_multiply(stage, std::min<std::int64_t>(2, positive(parallel.pipeline)));
  path.storage_reads =
      std::max<std::int64_t>(1, path.loads / std::min<std::int64_t>(path.ranks, stage));
}

}  // namespace

Result<Path> path_of(const Request& request) {
  if (request.job == nullptr || request.machine == nullptr || request.constants == nullptr) {
    return fail(broken(ErrorCode::internal, "feed::Request", "a null pointer",
                       "job, machine and constants"));
  }
  const facts::Job& job = *request.job;
  if (!job.machine.gpus) {
    return fail(broken(ErrorCode::missing_value, "machine.gpus", "nothing", "a whole number"));
  }
  if (!job.train.micro_batch) {
    return fail(broken(ErrorCode::missing_value, "train.micro_batch", "nothing", "a whole number"));
  }
  Path path{.job = job,
            .machine = *request.machine,
            .constants = *request.constants,
            .cores_note = {},
            .stored = std::nullopt,
            .sample = std::max(Bytes(), request.sample_bytes),
            .handed_over = Bytes(),
            .copied = Bytes(),
            .dataset = std::nullopt,
            .free_for_page_cache = std::max(Bytes(), request.free_for_page_cache),
            .loaders = request.loaders,
            .batches = request.batches,
            .pinned = request.pinned};
  path.ranks = std::max<std::int64_t>(1, *job.machine.gpus);
  path.workers = std::max<std::int64_t>(0, job.data.workers.value_or(0));
  count_loads(path);
  if (job.data.bytes_per_sample && *job.data.bytes_per_sample > 0.0) {
    path.stored = Bytes(std::max<std::int64_t>(1, checked_round(*job.data.bytes_per_sample)));
    if (job.data.samples) {
      path.dataset =
          Bytes(checked_round(*job.data.bytes_per_sample * static_cast<double>(*job.data.samples)));
    }
  }
  const bool gpu_decodes = job.data.decode == facts::DecodeOn::gpu;
  path.handed_over = gpu_decodes && path.stored ? *path.stored : path.sample;
  path.copied = request.copied_bytes.value_or(path.handed_over);
  path.needed = request.needed_per_node;
  share_cores(path);
  return path;
}

Path with_loaders(Path path, std::int64_t workers) {
  path.workers = workers;
  path.cores.reset();
  share_cores(path);
  return path;
}

Path in_first_epoch(Path path) {
  path.first_epoch = true;
  share_cores(path);
  return path;
}

}  // namespace steelyard::feed
