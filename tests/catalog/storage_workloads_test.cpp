// catalog/mlperf/storage.toml: every preset is read, and gives what was published.
#include "catalog/storage_workloads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace steelyard::catalog {
namespace {

using ::testing::HasSubstr;

StorageCatalogue the_catalogue() {
  const std::filesystem::path folder = std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog";
  Result<StorageCatalogue> all = storage_catalogue(Catalog::at(folder));
  if (!all) {
    ADD_FAILURE() << to_text(all.error());
    return {};
  }
  return *std::move(all);
}

TEST(StorageWorkloads, AllAreRead) {
  const StorageCatalogue all = the_catalogue();
  EXPECT_EQ(all.workloads.size(), 13U);
  EXPECT_EQ(all.checkpoints.size(), 4U);
  EXPECT_EQ(all.rules.epoch_steps, 500);
  for (const facts::StorageWorkload& workload : all.workloads) {
    EXPECT_FALSE(workload.source.empty()) << workload.id;
  }
}

// MB/s per accelerator: MLPerf Storage's record size times batch over computation time.
TEST(StorageWorkloads, RatesPerAcceleratorAsPublished) {
  const StorageCatalogue all = the_catalogue();
  const std::pair<const char*, double> kRates[] = {
      {"unet3d/a100", 1614},   {"unet3d/h100", 3177},   {"unet3d/b200", 6335},
      {"resnet50/a100", 105},  {"resnet50/h100", 205},  {"cosmoflow/a100", 513},
      {"cosmoflow/h100", 808}, {"retinanet/b200", 163}, {"retinanet/mi355", 163},
      {"flux/b200", 77},       {"flux/mi355", 77}};
  for (const auto& [id, rate] : kRates) {
    const Result<facts::StorageWorkload> workload = all.workload(id);
    ASSERT_TRUE(workload) << id;
    const Bytes step = workload->record * workload->batch.value();
    EXPECT_NEAR((step / workload->computation).value() / 1e6, rate, 0.5) << id;
  }
}

TEST(StorageWorkloads, AnUnknownNameIsAnErrorWithAllNames) {
  const Result<facts::StorageWorkload> none = the_catalogue().workload("unet3d/h200");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::unknown_name);
  EXPECT_THAT(none.error().accepted, HasSubstr("unet3d/h100"));
}

}  // namespace
}  // namespace steelyard::catalog
