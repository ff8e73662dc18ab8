// MLPerf Storage's workloads: mlperf/storage.toml of a catalogue.
#pragma once

#include <string_view>
#include <vector>

#include "base/error.h"
#include "catalog/catalog.h"
#include "facts/storage_workload.h"

namespace steelyard::catalog {

struct StorageCatalogue {
  facts::StorageRules rules;
  std::vector<facts::StorageWorkload> workloads;  // sorted by id
  std::vector<facts::CheckpointWorkload> checkpoints;

  // Errors: unknown_name, with all names.
  [[nodiscard]] Result<facts::StorageWorkload> workload(std::string_view id) const;
  [[nodiscard]] Result<facts::CheckpointWorkload> checkpoint(std::string_view id) const;
};

[[nodiscard]] Result<StorageCatalogue> storage_catalogue(const Catalog& catalog);

}  // namespace steelyard::catalog
