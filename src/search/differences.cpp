#include "search/differences.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

namespace steelyard::search {

namespace {

using facts::Job;
using facts::KeySettings;
using facts::MachineKeys;

// "machine.name=dgx-h100"; where the job's table says more, which would hold there too, the whole
// table is written anew.
void add_machine(const MachineKeys& from, const MachineKeys& to, KeySettings& set) {
  if (from.name == to.name && from.gpu == to.gpu) {
    if (from.nodes != to.nodes) set.emplace_back("machine.nodes", std::to_string(to.nodes));
    return;
  }
  const bool plain = from.name && to.name && !from.fabric_gpus && !from.gpu && !from.ram_gib &&
                     !from.vram_gib && !from.cores && !from.storage_gb_per_s &&
                     !from.network_gbps_per_gpu && !from.numa_binding &&
                     from.numa_memory == MachineKeys().numa_memory;
  if (plain) {
    set.emplace_back("machine.name", *to.name);
    if (from.nodes != to.nodes) set.emplace_back("machine.nodes", std::to_string(to.nodes));
    return;
  }
  std::string table = to.name ? fmt::format("name = \"{}\"", *to.name)
                              : fmt::format("gpu = \"{}\"", to.gpu.value_or(""));
  if (to.nodes != 1) table += fmt::format(", nodes = {}", to.nodes);
  if (from.gpus) table += fmt::format(", gpus = {}", *from.gpus);
  set.emplace_back("machine", "{ " + table + " }");
}

template <class T>
void add(KeySettings& set, const char* key, const std::optional<T>& given, T then) {
  if (given && *given != then) set.emplace_back(key, std::to_string(then));
}

}  // namespace

KeySettings differences(const Job& job, const Job& layout, std::int64_t gpus) {
  KeySettings set;
  add_machine(job.machine, layout.machine, set);
  const facts::ParallelKeys& p = layout.parallel;
  const std::int64_t data = gpus / (p.tensor * p.pipeline * p.context);
  const std::int64_t samples = layout.train.micro_batch.value_or(1);
  const std::int64_t batch = layout.train.global_batch.value_or(1);
  const std::int64_t passes = job.train.gradient_accumulation.value_or(1);
  // What the planner would take for the batch where the job does not say it.
  if (job.train.global_batch.value_or(samples * data * passes) != batch) {
    set.emplace_back("train.global_batch", std::to_string(batch));
  }
  add(set, "train.gradient_accumulation", job.train.gradient_accumulation,
      std::max<std::int64_t>(1, batch / (samples * data)));
  // Without the key it follows from the others.
  if (!job.train.micro_batch && job.train.gradient_accumulation && !job.train.tokens_per_batch) {
    set.emplace_back("train.micro_batch", std::to_string(samples));
  }
  add(set, "parallel.data", job.parallel.data, data);
  if (job.parallel.shard_group && !p.shard_group) {
    const bool in_nodes = p.sharding == facts::Sharding::hsdp;
    const std::int64_t alike = data * p.context;
    const std::int64_t of_node = layout.machine.gpus.value_or(alike);
    add(set, "parallel.shard_group", job.parallel.shard_group,
        in_nodes ? std::min(alike, of_node) : alike);
  }
  if (job.parallel.schedule != p.schedule) {
    set.emplace_back("parallel.schedule", std::string(facts::name_of(p.schedule)));
  }
  return set;
}

KeySettings overlaid(KeySettings set, const KeySettings& then) {
  for (const auto& setting : then) {
    const auto same = std::find_if(set.begin(), set.end(),
                                   [&](const auto& old) { return old.first == setting.first; });
    if (same == set.end()) {
      set.push_back(setting);
    } else {
      same->second = setting.second;
    }
  }
  return set;
}

}  // namespace steelyard::search
