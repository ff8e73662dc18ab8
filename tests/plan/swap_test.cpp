// Swapping to a node's drive and rows of tables in host memory: bytes and seconds by hand, and that
// a slower drive or link never makes a step faster.
#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "plan/plan.h"
#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::OffloadTo;
using step::WorkKind;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr double kParameters = 70'553'706'496.0;  // of Llama-3.1-70B
constexpr double kRanks = 8.0;
constexpr double kGroup = 1e9;

facts::Job swapping(OffloadTo parameters, OffloadTo optimizer) {
  facts::Job job = job_on_cards("h100-sxm-80gb", 8);
  job.framework = "deepspeed";
  job.model.config = std::string("llama-3.1-70b");
  job.parallel.sharding = facts::Sharding::zero3;
  job.train.precision = facts::Precision::bf16_mixed;
  job.train.sequence_length = 2048;
  job.train.recompute.mode = facts::RecomputeMode::full;
  job.machine.ram_gib = 4096;
  job.machine.storage_gb_per_s = 20.0;
  job.machine.storage_write_gb_per_s = 10.0;
  job.offload.parameters = parameters;
  job.offload.optimizer = optimizer;
  return job;
}

// Bytes of one rank in a step, by kind and name of the work.
std::map<std::string, double> moved(const facts::Job& job, WorkKind kind) {
  const PaceQuestion question = value_of(pace_question(request_for(job)));
  const step::Program& program = question.program;
  std::map<std::string, double> bytes;
  for (const step::Pass& pass : program.step) {
    step::for_each_phase(pass, [&](const step::Phase& phase) {
      for (const step::Body& body : phase.bodies) {
        for (const step::Event& event : body.events) {
          if (event.kind != step::EventKind::work) continue;
          const step::Work& work = program.work[static_cast<std::size_t>(event.index)];
          if (work.kind != kind) continue;
          bytes[program.names[static_cast<std::size_t>(work.name)]] +=
              work.traffic.real() * static_cast<double>(body.repeat * pass.repeat);
        }
      }
    });
  }
  return bytes;
}

void expect_near(double found, double expected, const char* what) {
  EXPECT_NEAR(found / expected, 1.0, 1e-3) << what;
}

// Per parameter of a rank's eighth: 2 B for forward and for backward (once for both ends); then 12
// B of fp32 weights and moments and 4 B of gradients are read, 12 B and the 2 B of new parameters
// written. Gradients leave in backward, but for the last sub-group's. Norms of 8,192 stay in
// memory: not worth 1 MiB.
TEST(Swapping, ReadsAndWritesWhatZeroInfinityMoves) {
  const facts::Job job = swapping(OffloadTo::nvme, OffloadTo::nvme);
  const double part = kParameters / kRanks;
  const double ends = 2.0 * 128'256 * 8192 / kRanks;  // embeddings and head: gathered once
  const auto read = moved(job, WorkKind::drive_read);
  expect_near(read.at("parameters from the drive"), 2 * (2 * part - ends), "parameters");
  expect_near(read.at("states from the drive"), 16 * part, "states and gradients");
  const auto written = moved(job, WorkKind::drive_write);
  expect_near(written.at("gradients to the drive"), 4 * part, "gradients");
  expect_near(written.at("states to the drive"), 12 * part, "states");
  expect_near(written.at("parameters to the drive"), 2 * part, "new parameters");
}

// Read at 20 / 8 GB/s, written at 10 / 8 GB/s for each rank, one after the other.
TEST(Swapping, TakesAsLongAsTheDrive) {
  const facts::Plan on_host = planned(swapping(OffloadTo::none, OffloadTo::cpu));
  const facts::Plan on_drive = planned(swapping(OffloadTo::none, OffloadTo::nvme));
  const double part = kParameters / kRanks;
  const double at_step = 16 * part / 2.5e9 + (12 * part + 4 * kGroup) / 1.25e9;
  const double longer =
      on_drive.pace.breakdown.offload.value() - on_host.pace.breakdown.offload.value();
  const double overhead = 1.15;  // of the whole step, the slowest of eight GPUs too, at most
  EXPECT_GT(longer, at_step);    // and what of the gradients outlasts backward
  EXPECT_LT(longer, overhead * (at_step + 4 * (part - kGroup) / 1.25e9));
  EXPECT_THAT(on_drive.pace.assumptions, Contains(HasSubstr("Swapping: a step reads 1.0 TiB")));
  for (const std::string& warning : on_drive.warnings) {
    EXPECT_THAT(warning, ::testing::Not(HasSubstr("NVMe")));
  }
}

// A ninth of it before, a ninth behind; the rest beside the host's processors, which are faster.
TEST(Swapping, OverlapsWhenPipelined) {
  facts::Job job = swapping(OffloadTo::none, OffloadTo::nvme);
  const double plain = planned(job).pace.step->value();
  const double host = 1.0;
  job.offload.pipelined = true;
  const facts::Plan plan = planned(job);
  EXPECT_LT(plan.pace.step->value(), plain);
  EXPECT_GT(plan.pace.step->value(), plain / 2 - host);
  EXPECT_THAT(plan.pace.assumptions, Contains(HasSubstr("while the host steps")));
}

// 13 B over 16 ranks: 0.8e9 elements each stay in the 1e9 that max_in_cpu keeps.
TEST(Swapping, ParametersBelowMaxInCpuStayInMemory) {
  facts::Job job = swapping(OffloadTo::nvme, OffloadTo::cpu);
  job.model.config = std::string("llama-3.1-8b");
  job.machine.nodes = 2;
  job.machine.network_gbps_per_gpu = 400.0;
  EXPECT_TRUE(moved(job, WorkKind::drive_read).empty());
  job.machine.nodes = 1;  // 8.03e9 / 8 is more than 1e9
  EXPECT_FALSE(moved(job, WorkKind::drive_read).empty());
}

TEST(Swapping, ASlowerDriveIsNeverFaster) {
  facts::Job job = swapping(OffloadTo::nvme, OffloadTo::nvme);
  for (const bool pipelined : {false, true}) {
    job.offload.pipelined = pipelined;
    double before = 0.0;
    for (const double rate : {200.0, 50.0, 20.0, 5.0, 1.0}) {
      job.machine.storage_gb_per_s = rate;
      const double step = planned(job).pace.step->value();
      EXPECT_GE(step, before) << rate;
      before = step;
    }
    job.machine.storage_gb_per_s = 20.0;
    before = std::numeric_limits<double>::max();
    for (const double rate : {0.5, 1.0, 5.0, 50.0}) {
      job.machine.storage_write_gb_per_s = rate;
      const double step = planned(job).pace.step->value();
      EXPECT_LE(step, before) << rate;
      before = step;
    }
    job.machine.storage_write_gb_per_s = 10.0;
  }
}

TEST(Swapping, AnUnknownDriveIsAssumedAndSaidSo) {
  facts::Job job = swapping(OffloadTo::none, OffloadTo::nvme);
  job.machine.storage_gb_per_s.reset();
  job.machine.storage_write_gb_per_s.reset();
  const facts::Plan plan = planned(job);
  EXPECT_THAT(plan.pace.assumptions, Contains(HasSubstr("2.9 GB/s read (assumed: one drive)")));
}

TEST(Swapping, WhyNamesTheDrive) {
  const auto why = value_of(pace_why(request_for(swapping(OffloadTo::nvme, OffloadTo::nvme))));
  Seconds drive, step;
  for (const facts::PaceRow& row : why.rows) {
    step += row.step;
    if (row.bound == facts::PaceBound::storage) drive += row.step;
  }
  EXPECT_GT((drive / step).value(), 0.5);
  EXPECT_NEAR((step / *why.pace.step).value(), 1.0, 1e-6);
  ASSERT_FALSE(why.helps.empty());
  EXPECT_THAT(why.helps.front().what, HasSubstr("faster drive"));
}

// --- Tables ------------------------------------------------------------------------------------

// torchrec/benchmarks: 26 tables of 128 values, 64 samples of 64 ids each, SGD; 106,496 rows of
// 512 B are read in forward, and of the different ones among them each is read and written once.
facts::Job tables(facts::EmbeddingOffload where) {
  facts::Job job = job_on_cards("v100-sxm-16gb", 1);
  job.model.config = facts::Value(
      facts::Object{{"model_type", "dlrm"},
                    {"num_embeddings_per_feature", facts::Array{1'000'000, 100'000, 50}},
                    {"embedding_dim", 128},
                    {"pooling", facts::Array{64, 64, 64}},
                    {"dense_features", 0},
                    {"bottom_mlp", facts::Array{}},
                    {"top_mlp", facts::Array{}},
                    {"interaction", "none"}});
  job.train.precision = facts::Precision::fp32;
  job.train.optimizer.name = facts::OptimizerName::sgd;
  job.train.gradient_clipping = false;
  job.train.micro_batch = 64;
  job.offload.embeddings = where;
  return job;
}

double distinct(double drawn, double rows) {
  return rows * (1.0 - std::exp(-drawn / rows));
}

TEST(TablesOnTheHost, RowsCrossTheLink) {
  constexpr double kDrawn = 64 * 64, kRow = 128 * 4;
  const double different = distinct(kDrawn, 1e6) + distinct(kDrawn, 1e5) + distinct(kDrawn, 50);
  auto fetched = moved(tables(facts::EmbeddingOffload::uvm), WorkKind::fetch);
  double sum = 0.0;
  for (const auto& [name, bytes] : fetched) sum += bytes;
  expect_near(sum, (3 * kDrawn + different) * kRow, "uvm");

  // A fifth is on the GPU; SGD has no state that would cross besides.
  facts::Job cached = tables(facts::EmbeddingOffload::uvm_caching);
  sum = 0.0;
  for (const auto& [name, bytes] : moved(cached, WorkKind::fetch)) sum += bytes;
  expect_near(sum, 0.8 * different * kRow, "cached");
  cached.offload.embedding_hits = 1.0;
  EXPECT_TRUE(moved(cached, WorkKind::fetch).empty());

  // Looked up by the host: the vectors go over the link and their gradients come back.
  const facts::Job host = tables(facts::EmbeddingOffload::cpu);
  sum = 0.0;
  for (const auto& [name, bytes] : moved(host, WorkKind::fetch)) sum += bytes;
  expect_near(sum, 2 * 3 * 64 * kRow, "vectors");
  sum = 0.0;
  for (const auto& [name, bytes] : moved(host, WorkKind::host)) sum += bytes;
  expect_near(sum, (3 * kDrawn + 2 * different) * kRow, "rows read, then read and written");
}

TEST(TablesOnTheHost, AreSlowerThanOnTheGpuAndFasterWithHits) {
  const double here = planned(tables(facts::EmbeddingOffload::none)).pace.step->value();
  facts::Job job = tables(facts::EmbeddingOffload::uvm_caching);
  double before = planned(tables(facts::EmbeddingOffload::uvm)).pace.step->value();
  for (const double hits : {0.0, 0.2, 0.5, 0.9, 1.0}) {
    job.offload.embedding_hits = hits;
    const double step = planned(job).pace.step->value();
    EXPECT_LE(step, before * (1.0 + 1e-9)) << hits;
    EXPECT_GE(step, here * 0.99) << hits;
    before = step;
  }
  job.offload.embedding_hits.reset();
  EXPECT_THAT(planned(job).pace.assumptions, Contains(HasSubstr("drawn evenly")));
}

}  // namespace
}  // namespace steelyard::plan
