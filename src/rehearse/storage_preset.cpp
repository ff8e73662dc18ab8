#include "rehearse/storage_preset.h"

#include <fmt/format.h>

#include "base/format.h"

namespace steelyard::rehearse {

BytesPerSecond demand(const facts::StorageWorkload& workload) {
  return workload.record * workload.batch.value() / workload.computation;
}

Bytes reader_memory(const facts::StorageWorkload& workload) {
  constexpr std::int64_t kPrefetch = 2;
  return workload.record * workload.batch.value() * workload.readers * kPrefetch;
}

DatasetNeed dataset_need(const facts::StorageWorkload& workload, const facts::StorageRules& rules,
                         std::int64_t accelerators, Bytes memory) {
  return {.by_memory = memory * Ratio(rules.memory_times),
          .by_steps = workload.record * workload.batch.value() * accelerators * rules.epoch_steps};
}

std::vector<std::string> dataset_remarks(const facts::StorageWorkload& workload,
                                         const facts::StorageRules& rules,
                                         std::int64_t accelerators, Bytes memory, Bytes dataset) {
  const DatasetNeed need = dataset_need(workload, rules, accelerators, memory);
  std::vector<std::string> remarks;
  if (dataset < need.by_memory) {
    remarks.push_back(fmt::format(
        "{} of data are less than {:g} x the {} of host memory ({}): the page cache may answer "
        "instead of the storage, and MLPerf Storage would not count the result",
        to_text(dataset), rules.memory_times, to_text(memory), to_text(need.by_memory)));
  }
  if (dataset < need.by_steps) {
    remarks.push_back(fmt::format(
        "{} of data are {} steps of {} accelerator{}: MLPerf Storage asks for {} ({})",
        to_text(dataset), dataset.value() / (need.by_steps.value() / rules.epoch_steps),
        accelerators, accelerators == 1 ? "" : "s", rules.epoch_steps, to_text(need.by_steps)));
  }
  return remarks;
}

Parameters parameters_of(const facts::CheckpointWorkload& workload) {
  const Parameters h(workload.hidden);
  const std::int64_t keys = workload.hidden * workload.kv_heads / workload.heads;
  const Parameters norms = h * 2;
  const Parameters query_key_value = h * (workload.hidden + 2 * keys);
  const Parameters output = h * workload.hidden;
  const Parameters feed_forward = h * workload.feed_forward * 3;
  const Parameters layer = norms + query_key_value + output + feed_forward;
  return h * workload.vocabulary * 2 + h + layer * workload.layers;
}

Bytes model_bytes(const facts::CheckpointWorkload& workload) {
  return Bytes(2) * parameters_of(workload).value();
}

Bytes optimizer_bytes(const facts::CheckpointWorkload& workload) {
  return Bytes(12) * parameters_of(workload).value();
}

std::int64_t processes_of(const facts::CheckpointWorkload& workload) {
  return workload.tensor_parallel * workload.pipeline_parallel * workload.data_parallel;
}

}  // namespace steelyard::rehearse
