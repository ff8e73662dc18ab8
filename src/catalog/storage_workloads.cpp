#include "catalog/storage_workloads.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "catalog/files.h"
#include "catalog/settings.h"

namespace steelyard::catalog {
namespace {

using facts::StorageFormat;

constexpr std::array<std::pair<std::string_view, StorageFormat>, 4> kFormats = {
    {{"npz", StorageFormat::npz},
     {"tfrecord", StorageFormat::tfrecord},
     {"jpeg", StorageFormat::jpeg},
     {"parquet", StorageFormat::parquet}}};

Error wrong(const std::filesystem::path& file, std::string subject, std::string found,
            std::string accepted) {
  return {.code = ErrorCode::bad_input,
          .subject = std::move(subject),
          .found = std::move(found),
          .accepted = std::move(accepted),
          .file = file.string()};
}

// A table whose members are tables.
Result<const facts::Object*> members_of(const facts::Value& table, const std::string& name,
                                        const std::filesystem::path& file) {
  const facts::Object* members = table.as_object();
  if (members == nullptr || members->empty()) {
    return fail(wrong(file, name, table.kind_name(), "a table"));
  }
  for (const auto& [key, value] : *members) {
    if (value.as_object() == nullptr) {
      return fail(wrong(file, name + "." + key, value.kind_name(), "a table"));
    }
  }
  return members;
}

Result<void> is_positive(const facts::StorageWorkload& workload,
                         const std::filesystem::path& file) {
  const bool good = workload.samples_per_file.value() > 0 && workload.record.value() > 0 &&
                    workload.record_stdev.value() >= 0 && workload.batch.value() > 0 &&
                    workload.readers > 0 && workload.computation.value() > 0;
  if (good) return {};
  return fail(wrong(file, workload.id, "a size, count or time of zero", "positive ones"));
}

Result<void> add_workloads(const std::string& model, const facts::Value& table,
                           const std::filesystem::path& file, StorageCatalogue& all) {
  Settings settings(table, file);
  facts::StorageWorkload shared;
  const std::string format = settings.text("format");
  shared.images = settings.flag("images");
  shared.samples_per_file = Samples(settings.whole("samples_per_file"));
  shared.record = settings.bytes("record");
  shared.record_stdev = settings.bytes("record_stdev");
  shared.readers = settings.whole("readers");
  shared.source = settings.text("source");
  const facts::Value& accelerators = settings.table("accelerators");
  STEELYARD_CHECK(settings.finish());
  const auto* known = std::find_if(kFormats.begin(), kFormats.end(),
                                   [&](const auto& entry) { return entry.first == format; });
  if (known == kFormats.end()) {
    return fail(wrong(file, model + ".format", format, "npz, tfrecord, jpeg or parquet"));
  }
  shared.format = known->second;
  STEELYARD_TRY(members, members_of(accelerators, model + ".accelerators", file));
  for (const auto& [accelerator, values] : *members) {
    facts::StorageWorkload workload = shared;
    workload.id = model + "/" + accelerator;
    Settings own(values, file);
    workload.batch = Samples(own.whole("batch"));
    workload.computation = own.seconds("computation");
    if (own.has("least_utilization_ratio")) {
      workload.least_utilization = own.ratio("least_utilization");
    }
    STEELYARD_CHECK(own.finish());
    STEELYARD_CHECK(is_positive(workload, file));
    all.workloads.push_back(std::move(workload));
  }
  return {};
}

Result<facts::CheckpointWorkload> checkpoint_from(const std::string& id, const facts::Value& table,
                                                  const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::CheckpointWorkload checkpoint;
  checkpoint.id = id;
  const std::pair<const char*, std::int64_t*> sizes[] = {
      {"hidden", &checkpoint.hidden},
      {"feed_forward", &checkpoint.feed_forward},
      {"layers", &checkpoint.layers},
      {"heads", &checkpoint.heads},
      {"kv_heads", &checkpoint.kv_heads},
      {"vocabulary", &checkpoint.vocabulary},
      {"tensor_parallel", &checkpoint.tensor_parallel},
      {"pipeline_parallel", &checkpoint.pipeline_parallel},
      {"data_parallel", &checkpoint.data_parallel}};
  for (const auto& [key, member] : sizes) *member = settings.whole(key);
  checkpoint.zero_stage = settings.whole("zero_stage");
  checkpoint.source = settings.text("source");
  STEELYARD_CHECK(settings.finish());
  for (const auto& [key, member] : sizes) {
    if (*member <= 0) return fail(wrong(file, id + "." + key, "0", "a positive number"));
  }
  return checkpoint;
}

Result<facts::StorageRules> rules_from(const facts::Value& table,
                                       const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::StorageRules rules;
  rules.memory_times = settings.real("memory_times");
  rules.epoch_steps = settings.whole("epoch_steps");
  rules.checkpoint_memory = settings.real("checkpoint_memory_times");
  rules.source = settings.text("source");
  STEELYARD_CHECK(settings.finish());
  return rules;
}

template <class Entry>
Result<Entry> entry_named(const std::vector<Entry>& entries, std::string_view id,
                          const char* subject) {
  std::vector<std::string> ids;
  for (const Entry& entry : entries) {
    if (entry.id == id) return entry;
    ids.push_back(entry.id);
  }
  return fail({.code = ErrorCode::unknown_name,
               .subject = subject,
               .found = std::string(id),
               .accepted = fmt::format("{}", fmt::join(ids, ", "))});
}

}  // namespace

Result<facts::StorageWorkload> StorageCatalogue::workload(std::string_view id) const {
  return entry_named(workloads, id, "preset");
}

Result<facts::CheckpointWorkload> StorageCatalogue::checkpoint(std::string_view id) const {
  return entry_named(checkpoints, id, "checkpoint");
}

Result<StorageCatalogue> storage_catalogue(const Catalog& catalog) {
  const std::string name = "mlperf/storage.toml";
  const std::filesystem::path file = catalog.folder() / name;
  Files files(catalog.folder());
  STEELYARD_TRY(content, files.read(name));
  Settings top(*content, file);
  StorageCatalogue all;
  STEELYARD_TRY(rules, rules_from(top.table("rules"), file));
  all.rules = std::move(rules);
  STEELYARD_TRY(training, members_of(top.table("training"), "training", file));
  for (const auto& [model, table] : *training) {
    STEELYARD_CHECK(add_workloads(model, table, file, all));
  }
  STEELYARD_TRY(checkpoints, members_of(top.table("checkpoints"), "checkpoints", file));
  for (const auto& [id, table] : *checkpoints) {
    STEELYARD_TRY(checkpoint, checkpoint_from(id, table, file));
    all.checkpoints.push_back(std::move(checkpoint));
  }
  STEELYARD_CHECK(top.finish());
  std::sort(all.workloads.begin(), all.workloads.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  return all;
}

}  // namespace steelyard::catalog
