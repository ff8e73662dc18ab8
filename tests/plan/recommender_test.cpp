// Embedding tables on every GPU, spread over GPUs, on the host.
#include <string>

#include "plan/plan.h"
#include "plan/planning.h"

namespace steelyard::plan {
namespace {

facts::Job recommender(std::int64_t gpus) {
  facts::Job job = job_on("dgx-a100-80gb", gpus);
  job.model.config = std::string("dlrm-criteo-small");
  job.train.precision = facts::Precision::fp32;
  job.train.optimizer.name = facts::OptimizerName::sgd;
  job.train.micro_batch = 4096;
  return job;
}

constexpr std::int64_t kTables = 32'709'138 * std::int64_t{128} * 4;  // bytes of all tables

TEST(Recommender, SparseGradientsAreAsLargeAsWhatWasRead) {
  const facts::Plan plan = planned(recommender(1));
  EXPECT_GE(plan.vram.fullest.by_category[facts::VramCategory::parameters], Bytes(kTables));
  // 26 rows of 128 values per sample, and the MLPs' 2.4 M: nothing like the tables.
  EXPECT_LT(plan.vram.fullest.by_category[facts::VramCategory::gradients],
            Bytes(2 * 4096 * 26 * 128 * 4));
}

TEST(Recommender, SpreadTablesNeedLessOnEachGpu) {
  facts::Job job = recommender(8);
  const Bytes everywhere = planned(job).vram.fullest.peak_allocated;
  for (const auto placement :
       {facts::EmbeddingPlacement::table_wise, facts::EmbeddingPlacement::row_wise,
        facts::EmbeddingPlacement::column_wise}) {
    job.parallel.embeddings = placement;
    const facts::Plan plan = planned(job);
    const Bytes parameters = plan.vram.fullest.by_category[facts::VramCategory::parameters];
    EXPECT_LT(plan.vram.fullest.peak_allocated, everywhere);
    // No rank holds less than its share; table-wise the largest table is a quarter of all.
    EXPECT_GE(parameters, Bytes(kTables / 8));
    EXPECT_LE(parameters, Bytes(kTables / 3));
    EXPECT_GT(plan.pace.breakdown.exposed_communication.value(), 0.0);
    EXPECT_EQ(plan.model.parameters.value(), planned(recommender(1)).model.parameters.value());
  }
}

// NVIDIA's 113-billion-parameter DLRM is made by eight ranks in a host with 2 TiB: each its own
// share.
TEST(Recommender, RanksMakeOnlyTheTablesThatTheyHold) {
  facts::Job job = recommender(8);
  job.parallel.embeddings = facts::EmbeddingPlacement::column_wise;
  const facts::Plan plan = planned(job);
  const auto& load = plan.ram.phases[static_cast<std::size_t>(facts::RamPhase::load)];
  EXPECT_LE(load[facts::RamCategory::model_load], Bytes(kTables + 8 * (16 << 20)));
}

TEST(Recommender, TablesOnTheHostAreCountedThere) {
  facts::Job job = recommender(1);
  job.offload.embeddings = facts::EmbeddingOffload::uvm;
  const facts::Plan plan = planned(job);
  EXPECT_LT(plan.vram.fullest.by_category[facts::VramCategory::parameters], Bytes(16 << 20));
  const auto& steady = plan.ram.phases[static_cast<std::size_t>(facts::RamPhase::steady)];
  EXPECT_NEAR(steady[facts::RamCategory::embedding_tables].real(), static_cast<double>(kTables),
              1e-3 * static_cast<double>(kTables));
  job.offload.embeddings = facts::EmbeddingOffload::uvm_caching;
  const Bytes cached = planned(job).vram.fullest.by_category[facts::VramCategory::parameters];
  EXPECT_GT(cached, Bytes(kTables / 5));
  EXPECT_LT(cached, Bytes(kTables / 5 + (16 << 20)));
}

TEST(Recommender, PlacementsWithoutTablesAreRefused) {
  facts::Job job = job_on("dgx-a100-80gb", 8);
  job.model.config = std::string("gpt2");
  job.parallel.embeddings = facts::EmbeddingPlacement::table_wise;
  const auto refused = plan(request_for(job));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().subject, "parallel.embeddings");
  job = recommender(1);
  job.train.sequence_length = 128;
  EXPECT_FALSE(plan(request_for(job)));
}

}  // namespace
}  // namespace steelyard::plan
