#include "ram/loaders.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/format.h"

namespace steelyard::ram {
namespace {

using facts::RamCategory;

// A slot of a list (8 B) and an integer (28 B, taken as 32: CPython 3.11 object sizes).
constexpr std::int64_t kOrderPerSample = 40;
// Of each sample in a shuffle buffer beside its bytes: a tensor, its string, a place in the buffer.
// Measured with tf.data of TensorFlow 2.21: 240 B when the buffer is full for the first time, 380
// after some epochs (200,000 records of 100 B); tensorflow #60599 reports 200 for integers.
constexpr std::int64_t kBufferedSample = 300;

// Decoded samples that are in memory already are not copied before they become a batch.
bool hands_over_views(const Node& node) {
  return node.job.data.cache == facts::DataCache::ram;
}

// Of one sample while it is decoded, beside what it becomes.
Bytes decoding_memory(const Node& node) {
  const facts::DataKeys& data = node.job.data;
  if (data.decode == facts::DecodeOn::gpu || hands_over_views(node)) return {};
  const auto found = data.kind ? node.constants.decoding_memory.find(facts::name_of(*data.kind))
                               : node.constants.decoding_memory.end();
  if (found == node.constants.decoding_memory.end() || !data.bytes_per_sample) return {};
  Bytes held(checked_round(*data.bytes_per_sample * found->second));
  const facts::TrainKeys& train = node.job.train;
  if (data.kind == facts::DataKind::video && train.frames && train.image_size.size() == 2) {
    constexpr std::int64_t kColours = 3;
    held += Bytes(checked_multiply(checked_multiply(*train.frames, kColours),
                                   checked_multiply(train.image_size[0], train.image_size[1])));
  }
  return held;
}

// W loader processes per rank, each with the samples of a batch that it is putting together.
void add_workers(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  if (node.threads) return;
  const std::int64_t processes = checked_multiply(node.ranks, node.workers);
  const Bytes samples = hands_over_views(node) ? Bytes() : node.batch;
  const Bytes decoding = decoding_memory(node);
  bytes[RamCategory::loader_workers] += (node.worker + samples + decoding) * processes;
  if (processes > 0) {
    const std::string besides =
        decoding > Bytes() ? fmt::format(" and what decoding takes ({})", to_text(decoding)) : "";
    notes.push_back(of_pytorch(
        node,
        fmt::format(
            "loader_workers: {} x {} worker processes x {}, the samples of one batch ({}){}.",
            ranks_text(node.ranks), node.workers, to_text(node.worker), to_text(samples), besides),
        Provenance::measured, "validation/record_ram.py, catalog/calibration/host.toml"));
  }
}

// Python objects that stand for the samples: a folder's list of files, and the order of an epoch as
// RandomSampler draws it (torch.randperm(n).tolist(), torch/utils/data/sampler.py). Each worker
// ends up with its own copy of the list, because reading it writes reference counts
// (copy-on-write).
void add_index(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  const facts::DataKeys& data = node.job.data;
  if (!data.samples) return;
  const bool drawn_in_python = data.shuffle == facts::Shuffle::sample && !node.threads;
  if (drawn_in_python) {
    const Bytes order = Bytes(kOrderPerSample) * *data.samples;
    bytes[RamCategory::framework] += order * node.ranks;
    notes.push_back(of_pytorch(
        node,
        fmt::format("framework: an epoch's order of {} samples is {} of Python integers in {}.",
                    grouped(*data.samples), to_text(order), each_rank(node.ranks)),
        Provenance::derived,
        "torch/utils/data/sampler.py: randperm(n).tolist(), 40 B an integer (CPython 3.11)"));
  }
  const bool file_list =
      data.layout == facts::DataLayout::files && data.kind != facts::DataKind::tokens &&
      data.cache != facts::DataCache::ram && data.cache != facts::DataCache::ram_encoded;
  if (!file_list) return;
  const Bytes index = node.constants.index_per_sample * *data.samples;
  bytes[RamCategory::framework] += index * node.ranks;
  const std::int64_t workers = node.threads ? 0 : node.workers;
  bytes[RamCategory::loader_workers] += index * checked_multiply(node.ranks, workers);
  notes.push_back(of_pytorch(
      node,
      fmt::format("framework, loader_workers: the list of {} files is {} of Python objects, and "
                  "each of {} processes ends up with its own copy.",
                  grouped(*data.samples), to_text(index),
                  checked_multiply(node.ranks, checked_add(workers, 1))),
      Provenance::derived, "pytorch #13246; 174 B an entry (CPython 3.11 object sizes)"));
}

// Threads that map samples in parallel and a buffer of whole batches behind them: one sample each,
// the batch that they become, and `prefetch` batches (tf.data's ParallelMap, Batch and Prefetch).
void add_mapped_batches(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  const std::int64_t micro_batch = std::max<std::int64_t>(1, *node.job.train.micro_batch);
  const Bytes samples =
      (ceil_divide(node.batch, micro_batch) + decoding_memory(node)) * node.workers;
  const std::int64_t ahead = checked_add(std::max<std::int64_t>(0, node.job.data.prefetch), 1);
  bytes[RamCategory::prefetch] += (node.batch * ahead + samples) * node.ranks;
  notes.push_back(
      {fmt::format(
           "prefetch: {} x {} batches of {} in the rank's own memory, and one sample in each of {} "
           "threads.",
           ranks_text(node.ranks), ahead, to_text(node.batch), node.workers),
       Provenance::derived, "tf.data parallel_map_dataset_op.cc, prefetch_dataset_op.cc"});
}

// In flight: ranks x W x f x batch, in /dev/shm when workers return tensors; without workers the
// rank has the samples and the batch that they become (PyTorch DataLoader, num_workers and
// prefetch_factor).
void add_shared_batches(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  const std::int64_t ahead =
      node.workers == 0
          ? (hands_over_views(node) ? 1 : 2)
          : checked_multiply(node.workers, std::max<std::int64_t>(1, node.job.data.prefetch));
  bytes[RamCategory::prefetch] += node.batch * ahead * node.ranks;
  notes.push_back(of_pytorch(
      node,
      fmt::format("prefetch: {} x {} batches in flight x {}, in shared memory (/dev/shm).",
                  ranks_text(node.ranks), ahead, to_text(node.batch)),
      Provenance::derived, "PyTorch DataLoader: num_workers x prefetch_factor"));
}

// The pin thread copies one batch while the step uses the one before. Only PyTorch's allocator
// rounds up.
void add_pinned_batches(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  const Bytes each = node.borrows_rules ? node.batch : pinned(node.batch);
  bytes[RamCategory::pinned] += each * 2 * node.ranks;
  if (node.borrows_rules) {
    notes.push_back(
        {fmt::format("pinned: two page-locked batches per rank, {} each.", to_text(each)),
         Provenance::assumed, "one is copied while the other is used"});
    return;
  }
  notes.push_back({fmt::format("pinned: two page-locked batches per rank, each {} rounded up to {} "
                               "by PyTorch's pinned allocator.",
                               to_text(node.batch), to_text(each)),
                   Provenance::derived, "aten/src/ATen/core/CachingHostAllocator.h"});
}

void add_batches(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  if (node.threads) {
    add_mapped_batches(node, bytes, notes);
  } else {
    add_shared_batches(node, bytes, notes);
  }
  if (node.job.data.pin_memory) add_pinned_batches(node, bytes, notes);
}

// A spawned worker gets the dataset by pickle (multiprocessing/popen_spawn_posix.py): objects such
// as the bytes of encoded samples are copied into each; tensors move to shared memory once.
void add_pickled_copies(const Node& node, Bytes held, bool decoded, facts::RamBytes& bytes,
                        Notes& notes) {
  const bool forked = node.job.data.worker_start == facts::WorkerStart::fork;
  if (forked || decoded || node.threads || node.workers == 0) return;
  const std::int64_t processes = checked_multiply(node.ranks, node.workers);
  bytes[RamCategory::loader_workers] += held * processes;
  notes.push_back(
      of_pytorch(node,
                 fmt::format("loader_workers: each of {} spawned workers unpickles a copy of the "
                             "cached dataset ({}).",
                             processes, to_text(held)),
                 Provenance::derived, "multiprocessing/popen_spawn_posix.py"));
}

Result<void> add_dataset_cache(const Node& node, Bytes sample_bytes, facts::RamBytes& bytes,
                               Notes& notes) {
  const facts::DataKeys& data = node.job.data;
  const bool decoded = data.cache == facts::DataCache::ram;
  if (!decoded && data.cache != facts::DataCache::ram_encoded) return {};
  if (data.kind == facts::DataKind::synthetic) return {};
  const std::optional<Bytes> stored = dataset_on_storage(data);
  if (!data.samples || (!decoded && !stored)) {
    return fail(Error{.code = ErrorCode::missing_value,
                      .subject = data.samples ? "data.bytes_per_sample" : "data.samples",
                      .found = "nothing",
                      .accepted = "a number greater than 0",
                      .hint = "data.cache = \"ram\" or \"ram-encoded\" needs the dataset's size",
                      .file = "",
                      .line = std::nullopt});
  }
  const Bytes held = decoded ? sample_bytes * *data.samples : *stored;
  const char* as = decoded ? "decoded" : "as stored";
  if (data.cache_shared) {
    bytes[RamCategory::dataset_cache] += held;
    notes.push_back({fmt::format("dataset_cache: the whole dataset, {}, once per node ({}).", as,
                                 to_text(held)),
                     Provenance::derived, "one mapping that all processes share"});
    return {};
  }
  bytes[RamCategory::dataset_cache] += held * node.ranks;
  notes.push_back({fmt::format("dataset_cache: the whole dataset, {} ({}), in {}: what a process "
                               "makes is its own (data.cache_shared: one for all).",
                               as, to_text(held), each_rank(node.ranks)),
                   Provenance::measured,
                   "validation/record_ram.py with two ranks; Ultralytics 22307"});
  add_pickled_copies(node, held, decoded, bytes, notes);
  return {};
}

// A buffer that samples are drawn from at random, as they are stored: tf.data's Dataset.shuffle
// before the map that decodes (in the rank's process), WebDataset's shuffle (in each worker).
void add_shuffle_buffer(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  const facts::DataKeys& data = node.job.data;
  if (data.shuffle_buffer.value_or(0) == 0 || !data.bytes_per_sample) return;
  const std::int64_t held =
      std::min(*data.shuffle_buffer, data.samples.value_or(*data.shuffle_buffer));
  const Bytes one(checked_round(*data.bytes_per_sample) + kBufferedSample);
  const std::int64_t buffers =
      checked_multiply(node.ranks, node.threads ? 1 : std::max<std::int64_t>(1, node.workers));
  bytes[node.threads || node.workers == 0 ? RamCategory::prefetch : RamCategory::loader_workers] +=
      one * checked_multiply(held, buffers);
  notes.push_back(
      {fmt::format(
           "{}: {} buffers to shuffle in, of {} samples as stored (data.shuffle_buffer): {} each.",
           node.threads || node.workers == 0 ? "prefetch" : "loader_workers", buffers,
           grouped(held), to_text(one * held)),
       Provenance::measured, "tf.data of TensorFlow 2.21: 240 to 380 B beside each sample"});
}

// NCCL connects ranks of a node through shared memory when the GPUs have no link of their own.
void add_segments(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  const bool joined = node.machine.gpu.link && node.machine.gpu.link->value() > 0.0;
  if (joined || node.ranks < 2) return;
  const std::int64_t neighbours = std::min<std::int64_t>(node.ranks - 1, 2);
  const std::int64_t connections = checked_multiply(checked_multiply(node.ranks, neighbours),
                                                    node.constants.shared_memory_channels);
  bytes[RamCategory::shared_memory] += node.constants.shared_memory_segment * connections;
  notes.push_back(
      {fmt::format("shared_memory: the GPUs have no known link, so NCCL uses {} shared-memory "
                   "segments of {}.",
                   connections, to_text(node.constants.shared_memory_segment)),
       Provenance::catalogue, "nccl #342, #525"});
}

}  // namespace

std::optional<Bytes> dataset_on_storage(const facts::DataKeys& data) {
  if (data.kind == facts::DataKind::synthetic) return Bytes();
  if (!data.samples || !data.bytes_per_sample) return std::nullopt;
  const double total = *data.bytes_per_sample * static_cast<double>(*data.samples);
  return Bytes(checked_round(std::ceil(total)));
}

Result<void> add_data_path(const Node& node, Bytes sample_bytes, facts::RamBytes& bytes,
                           Notes& notes) {
  add_segments(node, bytes, notes);
  if (node.job.data.kind == facts::DataKind::synthetic) {
    notes.push_back({"Synthetic data is made on the GPU: no loaders, no batches in host memory.",
                     Provenance::given, "data.kind"});
    return {};
  }
  add_workers(node, bytes, notes);
  add_index(node, bytes, notes);
  add_batches(node, bytes, notes);
  add_shuffle_buffer(node, bytes, notes);
  return add_dataset_cache(node, sample_bytes, bytes, notes);
}

}  // namespace steelyard::ram
