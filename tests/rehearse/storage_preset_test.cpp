// Section G of the researched facts, check 3: rates and sizes that follow from the published
// figures, written out here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rehearse/storage_preset.h"

namespace steelyard::rehearse {
namespace {

using namespace literals;
using ::testing::HasSubstr;
using ::testing::SizeIs;

const facts::StorageWorkload kUnet3d = {.id = "unet3d/h100",
                                        .samples_per_file = Samples(1),
                                        .record = Bytes(146'600'628),
                                        .record_stdev = Bytes(68'341'808),
                                        .batch = Samples(7),
                                        .readers = 4,
                                        .computation = Seconds(0.323),
                                        .source = ""};
const facts::StorageRules kRules = {
    .memory_times = 5, .epoch_steps = 500, .checkpoint_memory = 3, .source = ""};

TEST(StoragePreset, DemandIsTheBytesOfAStepOverItsTime) {
  // 7 * 146,600,628 / 0.323 = 3,177,103,580
  EXPECT_NEAR(demand(kUnet3d).value(), 3'177'103'580.0, 1000);
  EXPECT_EQ(reader_memory(kUnet3d), Bytes(146'600'628LL * 7 * 4 * 2));
}

TEST(StoragePreset, ADataSetThatIsTooSmallIsSaid) {
  // 500 * 7 * 2 * 146,600,628 = 1.026 TB; 5 * 512 GiB = 2.749 TB
  const DatasetNeed need = dataset_need(kUnet3d, kRules, 2, 512_GiB);
  EXPECT_EQ(need.by_memory, 2560_GiB);
  EXPECT_EQ(need.by_steps, Bytes(1'026'204'396'000));
  EXPECT_EQ(need.bytes(), need.by_memory);
  EXPECT_TRUE(dataset_remarks(kUnet3d, kRules, 2, 512_GiB, 2560_GiB).empty());
  const auto one = dataset_remarks(kUnet3d, kRules, 2, 512_GiB, 2000_GiB);
  ASSERT_THAT(one, SizeIs(1));
  EXPECT_THAT(one[0], HasSubstr("less than 5 x the 512.0 GiB of host memory"));
  // 20 GiB / (14 * 146,600,628) = 10 steps
  const auto both = dataset_remarks(kUnet3d, kRules, 2, 512_GiB, 20_GiB);
  ASSERT_THAT(both, SizeIs(2));
  EXPECT_THAT(both[1], HasSubstr("are 10 steps of 2 accelerators: MLPerf Storage asks for 500"));
}

facts::CheckpointWorkload llama(std::int64_t hidden, std::int64_t ffn, std::int64_t layers,
                                std::int64_t heads) {
  facts::CheckpointWorkload workload;
  workload.hidden = hidden;
  workload.feed_forward = ffn;
  workload.layers = layers;
  workload.heads = heads;
  workload.kv_heads = 8;
  workload.vocabulary = 128'256;
  return workload;
}

double gib(const facts::CheckpointWorkload& workload) {
  return (model_bytes(workload) + optimizer_bytes(workload)).real() / (1 << 30);
}

TEST(StoragePreset, CheckpointsByThePublishedFormula) {
  EXPECT_EQ(parameters_of(llama(4096, 14336, 32, 32)), Parameters(8'030'261'248));  // Llama 3 8B
  EXPECT_NEAR(gib(llama(4096, 14336, 32, 32)), 104.7, 0.05);
  // MLPerf Storage's configuration has 128 heads where Llama 3 70B has 64.
  EXPECT_NEAR(gib(llama(8192, 28672, 80, 128)), 911.2, 0.05);
  EXPECT_NEAR(gib(llama(16384, 53248, 126, 128)), 5291.7, 0.05);
}

}  // namespace
}  // namespace steelyard::rehearse
