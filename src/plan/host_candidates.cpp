// Candidates on the host's side: less of its memory, and a faster way from the dataset to the GPUs.
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "plan/candidates.h"

namespace steelyard::plan {

namespace {

using facts::AdviceEffort;
using facts::CheckpointLoad;
using facts::CheckpointMethod;
using facts::DataCache;
using facts::DataKind;
using facts::Job;
using facts::OffloadTo;
using facts::RamCategory;
using facts::RamPhase;

// More loader processes per GPU than this help nobody (feed/data_path.cpp).
constexpr std::int64_t kMostWorkers = 64;
// Checkpoints that take less of a step than this are not worth another way of saving.
constexpr double kNoticedSaving = 0.02;

Candidate cache(DataCache kind, const char* what, AdviceEffort effort = AdviceEffort::setting) {
  return {what,
          {{"data.cache", std::string(facts::name_of(kind))}},
          [kind](Job& job) { job.data.cache = kind; },
          effort};
}

// In memory that all processes of the node map.
Candidate one_cache(DataCache kind, const char* what) {
  return {what,
          {{"data.cache", std::string(facts::name_of(kind))}, {"data.cache_shared", "true"}},
          [kind](Job& job) {
            job.data.cache = kind;
            job.data.cache_shared = true;
          },
          AdviceEffort::care};
}

Candidate workers(std::int64_t count, const char* what) {
  return {what, {{"data.workers", fmt::format("{}", count)}}, [count](Job& job) {
            job.data.workers = count;
          }};
}

Candidate prefetch(std::int64_t count, const char* what) {
  return {what, {{"data.prefetch", fmt::format("{}", count)}}, [count](Job& job) {
            job.data.prefetch = count;
          }};
}

Candidate saved_by(CheckpointMethod method, const char* what) {
  return {what, {{"checkpoint.method", std::string(facts::name_of(method))}}, [method](Job& job) {
            job.checkpoint.method = method;
          }};
}

Candidate loaded_by(CheckpointLoad load, const char* what,
                    AdviceEffort effort = AdviceEffort::setting) {
  return {what,
          {{"checkpoint.load", std::string(facts::name_of(load))}},
          [load](Job& job) { job.checkpoint.load = load; },
          effort};
}

Candidate shards_of_samples() {
  return {"pack the samples into tar shards and shuffle those",
          {{"data.layout", "tar"}, {"data.shuffle", "shard"}},
          [](Job& job) {
            job.data.layout = facts::DataLayout::tar;
            job.data.shuffle = facts::Shuffle::shard;
          },
          AdviceEffort::care};
}

Candidate bound_to_sockets() {
  return {"bind each rank and its loaders to the socket of its GPU (steelyard why JOB feed)",
          {{"machine.numa_binding", "true"}},
          [](Job& job) { job.machine.numa_binding = true; }};
}

Candidate memory_of_any_node() {
  return {"let ranks take memory of other NUMA nodes where their own has none left (--preferred)",
          {{"machine.numa_memory", "preferred"}},
          [](Job& job) { job.machine.numa_memory = facts::NumaMemory::preferred; }};
}

// Whether one of the phases that exceed the host's memory holds any of these.
bool in_the_way(const facts::Plan& planned, std::initializer_list<RamCategory> categories) {
  // One NUMA node is short: of the phases that are about as full as its fullest.
  const facts::NodeLoad* node = planned.short_node();
  const Bytes capacity =
      node != nullptr
          ? planned.ram.phases[static_cast<std::size_t>(node->need_phase)].total() - Bytes(1)
          : *planned.ram.capacity;
  return std::ranges::any_of(planned.ram.phases, [&](const facts::RamBytes& phase) {
    return phase.total() > capacity && std::ranges::any_of(categories, [&](RamCategory category) {
             return phase[category] > Bytes();
           });
  });
}

void add_loading(const facts::Plan& planned, std::vector<Candidate>& list) {
  if (!in_the_way(planned, {RamCategory::model_load})) return;
  const CheckpointLoad load = planned.job.checkpoint.load;
  if (load == CheckpointLoad::per_rank || load == CheckpointLoad::rank0) {
    list.push_back(loaded_by(CheckpointLoad::mmap, "load the checkpoint by mapping the file"));
  }
  if (load == CheckpointLoad::per_rank && *planned.job.machine.gpus > 1) {
    list.push_back(loaded_by(CheckpointLoad::rank0,
                             "load the checkpoint on one rank, which sends it to the others"));
  }
  if (load != CheckpointLoad::meta) {
    list.push_back(loaded_by(CheckpointLoad::meta,
                             "make the model on the meta device and read each rank's own part of a "
                             "sharded checkpoint",
                             AdviceEffort::care));
  }
}

void add_saving(const facts::Plan& planned, std::vector<Candidate>& list) {
  if (!in_the_way(planned, {RamCategory::checkpoint_staging})) return;
  const CheckpointMethod method = planned.job.checkpoint.method;
  if (method == CheckpointMethod::async) {
    list.push_back(saved_by(CheckpointMethod::sync, "wait for the checkpoint, without a snapshot"));
  }
  if (method != CheckpointMethod::sharded_sync) {
    list.push_back(saved_by(CheckpointMethod::sharded_sync,
                            "save the checkpoint in shards, each rank its own"));
  }
}

void add_loaders(const facts::Plan& planned, std::vector<Candidate>& list) {
  const facts::DataKeys& data = planned.job.data;
  if (in_the_way(planned, {RamCategory::dataset_cache})) {
    if (!data.cache_shared && *planned.job.machine.gpus > 1) {
      list.push_back(
          one_cache(data.cache, "keep one copy of the dataset that all processes of a node map"));
    }
    if (data.cache == DataCache::ram) {
      list.push_back(cache(DataCache::ram_encoded, "keep the samples encoded in memory"));
    }
    list.push_back(cache(DataCache::page, "leave caching to the page cache"));
  }
  if (*data.workers > 0 && data.worker_start != facts::WorkerStart::fork &&
      in_the_way(planned, {RamCategory::loader_workers})) {
    list.push_back({"fork the loader workers",
                    {{"data.worker_start", "fork"}},
                    [](Job& job) { job.data.worker_start = facts::WorkerStart::fork; },
                    AdviceEffort::care});
  }
  if (*data.workers > 0 && data.prefetch > 1 && in_the_way(planned, {RamCategory::prefetch})) {
    list.push_back(prefetch(1, "one batch ahead per worker"));
  }
  if (*data.workers > 1 &&
      in_the_way(planned, {RamCategory::loader_workers, RamCategory::prefetch})) {
    list.push_back(workers(*data.workers / 2, "halve the loader workers"));
  }
}

void add_states(const facts::Plan& planned, std::vector<Candidate>& list) {
  const facts::OffloadKeys& offload = planned.job.offload;
  if (!in_the_way(planned,
                  {RamCategory::parameters, RamCategory::gradients, RamCategory::optimizer})) {
    return;
  }
  if (offload.pin_memory) {
    list.push_back({"leave offloaded states unpinned: nothing is rounded up, copies are slower",
                    {{"offload.pin_memory", "false"}},
                    [](Job& job) { job.offload.pin_memory = false; }});
  }
  if (offload.parameters != OffloadTo::none) {
    list.push_back({"keep the parameters on the GPUs",
                    {{"offload.parameters", "none"}},
                    [](Job& job) { job.offload.parameters = OffloadTo::none; }});
  }
  list.push_back({"keep all states on the GPUs",
                  {{"offload.parameters", "none"},
                   {"offload.optimizer", "none"},
                   {"offload.gradients", "none"}},
                  [](Job& job) {
                    job.offload.parameters = OffloadTo::none;
                    job.offload.optimizer = OffloadTo::none;
                    job.offload.gradients = OffloadTo::none;
                  }});
  if (planned.job.parallel.sharding == facts::Sharding::zero3 &&
      offload.optimizer == OffloadTo::cpu) {
    list.push_back({"move the optimizer states on to NVMe (ZeRO-Infinity)",
                    {{"offload.optimizer", "nvme"}},
                    [](Job& job) { job.offload.optimizer = OffloadTo::nvme; },
                    AdviceEffort::care});
  }
}

// As many workers as suffice, or as have a core.
void add_workers(const facts::Plan& planned, std::vector<Candidate>& list) {
  const std::int64_t now = *planned.job.data.workers;
  const facts::Host& host = planned.machine.host;
  std::int64_t wanted = std::min(kMostWorkers, now * 2);
  if (host.cores) wanted = std::max<std::int64_t>(1, *host.cores / *planned.job.machine.gpus);
  if (now == 0) wanted = std::max<std::int64_t>(1, std::min<std::int64_t>(wanted, 8));
  if (planned.feed.workers_enough) wanted = *planned.feed.workers_enough;
  if (wanted <= now) return;
  list.push_back(workers(
      wanted, now == 0 ? "load in worker processes, beside the step" : "more loader workers"));
}

bool may_decode_on_gpu(const facts::Plan& planned) {
  const auto kind = planned.job.data.kind.value_or(DataKind::tabular);
  return planned.machine.gpu.vendor == "nvidia" &&
         planned.job.data.decode == facts::DecodeOn::cpu &&
         (kind == DataKind::jpeg || kind == DataKind::video);  // nvJPEG, NVDEC
}

void add_places(const facts::Plan& planned, std::vector<Candidate>& list) {
  const std::string here = planned.job.data.location.value_or("");
  const auto rate_of = [](const facts::Storage& storage) {
    return storage.read ? storage.read->value() : 0.0;
  };
  double now = 0.0;
  for (const facts::Storage& storage : planned.machine.storage) {
    if (storage.name == here) now = rate_of(storage);
  }
  for (const facts::Storage& storage : planned.machine.storage) {
    if (storage.name == here || rate_of(storage) <= now) continue;
    const std::string name = storage.name;
    list.push_back({"copy the dataset to the machine's " + name,
                    {{"data.location", name}},
                    [name](Job& job) { job.data.location = name; },
                    AdviceEffort::care});
  }
}

}  // namespace

std::vector<Candidate> that_save_ram(const facts::Plan& planned) {
  std::vector<Candidate> list;
  if (planned.short_node() != nullptr) list.push_back(memory_of_any_node());
  add_loading(planned, list);
  add_saving(planned, list);
  add_loaders(planned, list);
  add_states(planned, list);
  return list;
}

std::vector<Candidate> that_save_faster(const facts::Plan& planned) {
  std::vector<Candidate> list;
  const Seconds saving = planned.pace.breakdown.checkpoint;
  if (!planned.pace.step || saving.value() < kNoticedSaving * planned.pace.step->value()) {
    return list;
  }
  const CheckpointMethod method = planned.job.checkpoint.method;
  if (method == CheckpointMethod::sync) {
    list.push_back(saved_by(CheckpointMethod::sharded_sync,
                            "save the checkpoint in shards, each rank its own"));
  }
  if (method == CheckpointMethod::sync || method == CheckpointMethod::sharded_sync) {
    list.push_back(saved_by(CheckpointMethod::sharded_async,
                            "save the checkpoint in shards while training goes on"));
  }
  return list;
}

std::vector<Candidate> that_feed_faster(const facts::Plan& planned) {
  std::vector<Candidate> list;
  const facts::FeedPlan& feed = planned.feed;
  const facts::DataKeys& data = planned.job.data;
  if (feed.limited_by.empty()) return list;  // nothing of the host can shorten the step
  const bool by_storage = feed.limited_by == "storage";
  const bool by_link = feed.limited_by == "host-to-device";
  if (!by_link) add_workers(planned, list);
  if (*data.workers > 0 && feed.prefetch_enough.value_or(0) > data.prefetch) {
    list.push_back(prefetch(*feed.prefetch_enough, "more batches ahead per worker"));
  }
  if (!by_storage && may_decode_on_gpu(planned)) {
    list.push_back({"decode on the GPU",
                    {{"data.decode", "gpu"}},
                    [](Job& job) { job.data.decode = facts::DecodeOn::gpu; },
                    AdviceEffort::care});
  }
  if (by_storage) {
    add_places(planned, list);
    if (data.layout == facts::DataLayout::files) list.push_back(shards_of_samples());
    if (data.cache == DataCache::none) {
      list.push_back(cache(DataCache::page, "read through the page cache"));
    }
    if (data.cache != DataCache::ram && data.cache != DataCache::ram_encoded) {
      list.push_back(one_cache(DataCache::ram_encoded,
                               "keep the dataset in memory, as stored, once for all processes"));
    }
  }
  if (!by_link && data.cache != DataCache::ram) {
    list.push_back(
        one_cache(DataCache::ram, "keep the decoded dataset in memory, once for all processes"));
  }
  if (!feed.numa.socket_of_rank.empty() && !feed.numa.bound) list.push_back(bound_to_sockets());
  return list;
}

}  // namespace steelyard::plan
