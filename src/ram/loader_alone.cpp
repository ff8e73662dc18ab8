#include "ram/loader_alone.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "ram/loaders.h"

namespace steelyard::ram {
namespace {

using facts::RamCategory;
using facts::RamPhase;

// What is smaller than a page of that size lies in ordinary ones.
Bytes in_pages(Bytes bytes, Bytes page) {
  if (page.value() <= 0 || bytes < page) return bytes;
  return page * ceil_divide(bytes, page.value()).value();
}

}  // namespace

LoaderMemory loader_memory(const facts::LoaderProfile& loader, const facts::Job& job,
                           Bytes sample) {
  const facts::DataKeys& data = job.data;
  const auto positive = [](std::int64_t n) { return std::max<std::int64_t>(1, n); };
  const std::int64_t ranks = positive(job.machine.gpus.value_or(1));
  const std::int64_t batch = positive(job.train.micro_batch.value_or(1));
  const std::int64_t workers = checked_multiply(ranks, positive(data.workers.value_or(1)));
  const std::int64_t ahead = checked_multiply(ranks, positive(data.prefetch));
  LoaderMemory memory;
  memory.program = loader.process;
  memory.batches = in_pages(sample * checked_multiply(ahead, batch), loader.page);
  if (data.samples) memory.index = loader.index_per_sample * *data.samples;
  if (data.bytes_per_sample) {
    const double slot =
        *data.bytes_per_sample + loader.slot_deviations * data.bytes_deviation.value_or(0.0);
    const std::int64_t slots = checked_add(workers, loader.depth);
    memory.read_buffers = in_pages(Bytes(checked_round(std::ceil(slot))) * slots, loader.page);
  }
  memory.threads =
      loader.per_worker * workers + loader.per_thread * checked_add(ranks, loader.other_threads);
  return memory;
}

facts::RamPlan memory_of_loader_alone(const Node& node, Bytes sample) {
  const LoaderMemory memory = loader_memory(*node.constants.loader, node.job, sample);
  facts::RamPlan plan;
  facts::RamBytes startup;
  startup[RamCategory::system] = node.constants.system;
  startup[RamCategory::framework] = memory.program + memory.index;
  facts::RamBytes running = startup;
  running[RamCategory::loader_workers] = memory.read_buffers + memory.threads;
  running[RamCategory::prefetch] = memory.batches;
  plan.phases[static_cast<std::size_t>(RamPhase::startup)] = startup;
  plan.phases[static_cast<std::size_t>(RamPhase::load)] = startup;
  plan.phases[static_cast<std::size_t>(RamPhase::steady)] = running;
  plan.phases[static_cast<std::size_t>(RamPhase::checkpoint)] = running;
  plan.peak = running.total();
  plan.peak_phase = RamPhase::steady;
  const std::string& name = node.constants.loader->name;
  const char* const recorded = "validation/record_rehearsal.py";
  plan.rules = {
      {fmt::format("framework: the program of the loader \"{}\" ({}) and its index ({}); nothing "
                   "runs beside it, no model lies in host memory.",
                   name, to_text(memory.program), to_text(memory.index)),
       Provenance::measured, recorded},
      {fmt::format("loader_workers: read buffers {}, threads {}.", to_text(memory.read_buffers),
                   to_text(memory.threads)),
       Provenance::measured, recorded},
      {fmt::format("prefetch: {} x {} batches, {}.", ranks_text(node.ranks),
                   std::max<std::int64_t>(1, node.job.data.prefetch), to_text(memory.batches)),
       Provenance::derived, "batches are put together in place"}};
  if (node.job.data.cache == facts::DataCache::page) {
    plan.page_cache_wanted = dataset_on_storage(node.job.data).value_or(Bytes());
  }
  plan.capacity = node.machine.host.memory;
  return plan;
}

}  // namespace steelyard::ram
