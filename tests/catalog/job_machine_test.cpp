#include <string>

#include "catalog/catalog.h"
#include "catalog_fixture.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

using facts::Provenance;
using namespace literals;

facts::Job job_on(std::string machine) {
  facts::Job job;
  job.machine.name = std::move(machine);
  return job;
}

facts::Job job_on_gpu(std::string gpu) {
  facts::Job job;
  job.machine.gpu = std::move(gpu);
  return job;
}

TEST(JobMachine, AnIdOfTheCatalogueIsThatMachine) {
  const facts::Machine machine = value_of(own_catalog().machine_of(job_on("dgx-a100-80gb"), "."));
  EXPECT_EQ(machine.gpus, 8);
  EXPECT_EQ(*machine.host.memory, 2_TiB);
}

TEST(JobMachine, TheJobsFiguresReplaceThoseOfTheMachine) {
  facts::Job job = job_on("dgx-h100");
  job.machine.ram_gib = 512;
  job.machine.vram_gib = 64;
  job.machine.cores = 48;
  job.machine.storage_gb_per_s = 12.5;
  job.machine.network_gbps_per_gpu = 100;
  const facts::Machine machine = value_of(own_catalog().machine_of(job, "."));
  EXPECT_EQ(*machine.host.memory, 512_GiB);
  EXPECT_EQ(machine.host.memory.from, Provenance::given);
  EXPECT_EQ(*machine.gpu.memory, 64_GiB);
  EXPECT_EQ(*machine.host.cores, 48);
  ASSERT_EQ(machine.storage.size(), 1U);
  EXPECT_DOUBLE_EQ(machine.storage[0].read->value(), 12.5e9);
  EXPECT_EQ(*machine.storage[0].capacity, 30720_GB);
  // 100 Gbit/s = 12.5 GB/s.
  EXPECT_DOUBLE_EQ(machine.network_per_gpu->value(), 12.5e9);
  EXPECT_EQ(machine.network_per_gpu.from, Provenance::given);
}

// Two cards without their bridge; a link that is stated joins all of a node.
TEST(JobMachine, TheLinkBetweenGpusCanBeStated) {
  facts::Job job = job_on_gpu("rtx-3090");
  job.machine.gpu_link_gb_per_s = 0.0;
  EXPECT_DOUBLE_EQ(value_of(own_catalog().machine_of(job, ".")).gpu.link->value(), 0.0);
  job.machine.gpu_link_gb_per_s = 25.0;
  const facts::Gpu gpu = value_of(own_catalog().machine_of(job, ".")).gpu;
  EXPECT_DOUBLE_EQ(gpu.link->value(), 25e9);
  EXPECT_EQ(gpu.link_gpus, 0);
  job.machine.gpu_link_gb_per_s = -1.0;
  EXPECT_FALSE(own_catalog().machine_of(job, "."));
}

TEST(JobMachine, SeveralNodesWithoutANetworkTakeTheReferenceServers) {
  facts::Job job;
  job.machine.gpu = std::string("h100-sxm-80gb");
  job.machine.gpus = 8;
  EXPECT_FALSE(value_of(own_catalog().machine_of(job, ".")).network_per_gpu);
  job.machine.nodes = 2;
  const facts::Machine machine = value_of(own_catalog().machine_of(job, "."));
  EXPECT_DOUBLE_EQ(machine.network_per_gpu->value(), 50e9);
  EXPECT_EQ(machine.network_per_gpu.from, Provenance::assumed);
  // No server of GeForce cards is a reference: unknown stays unknown.
  job.machine.gpu = std::string("rtx-4090");
  EXPECT_FALSE(value_of(own_catalog().machine_of(job, ".")).network_per_gpu);
}

TEST(JobMachine, ARackOfTraysIsOneFabric) {
  const facts::Machine machine =
      value_of(own_catalog().machine_of(job_on("gb200-nvl72-tray"), "."));
  EXPECT_EQ(machine.gpus, 4);
  EXPECT_EQ(*machine.fabric_gpus, 72);
  EXPECT_FALSE(value_of(own_catalog().machine_of(job_on("dgx-h100"), ".")).fabric_gpus);
}

TEST(JobMachine, TheStorageRateBelongsToWhereTheDataLies) {
  facts::Job job = job_on("dgx-h100");
  job.data.location = "network";
  job.machine.storage_gb_per_s = 40;
  const facts::Machine machine = value_of(own_catalog().machine_of(job, "."));
  ASSERT_EQ(machine.storage.size(), 2U);
  EXPECT_FALSE(machine.storage[0].read);
  EXPECT_EQ(machine.storage[1].name, "network");
  EXPECT_DOUBLE_EQ(machine.storage[1].read->value(), 40e9);
}

TEST(JobMachine, ABareGpuKnowsOnlyWhatTheJobGives) {
  facts::Job job = job_on_gpu("h100-sxm-80gb");
  const facts::Machine one = value_of(own_catalog().machine_of(job, "."));
  EXPECT_EQ(one.kind, "bare-gpu");
  EXPECT_EQ(one.gpus, 1);
  EXPECT_FALSE(one.host.memory);
  EXPECT_FALSE(one.host.cores);
  EXPECT_TRUE(one.storage.empty());
  EXPECT_FALSE(one.price);
  job.machine.gpus = 4;
  job.machine.ram_gib = 256;
  job.machine.storage_gb_per_s = 3;
  const facts::Machine four = value_of(own_catalog().machine_of(job, "."));
  EXPECT_EQ(four.gpus, 4);
  EXPECT_EQ(*four.host.memory, 256_GiB);
  ASSERT_EQ(four.storage.size(), 1U);
  EXPECT_EQ(four.storage[0].name, "nvme");
}

TEST(JobMachine, NeitherNameNorGpuSaysWhatToGive) {
  const Error error = error_of(own_catalog().machine_of(facts::Job{}, "."));
  EXPECT_EQ(error.code, ErrorCode::missing_value);
  EXPECT_NE(error.accepted.find("gpu = "), std::string::npos);
  EXPECT_NE(error.hint.find("steelyard list machines"), std::string::npos);
}

TEST(JobMachine, NameAndGpuTogetherAreRefused) {
  facts::Job job = job_on("dgx-h100");
  job.machine.gpu = "t4";
  EXPECT_EQ(error_of(own_catalog().machine_of(job, ".")).code, ErrorCode::impossible_combination);
}

TEST(JobMachine, MoreGpusThanTheMachineHasAreRefused) {
  facts::Job job = job_on("dgx-h100");
  job.machine.gpus = 9;
  const Error error = error_of(own_catalog().machine_of(job, "."));
  EXPECT_EQ(error.code, ErrorCode::impossible_combination);
  EXPECT_EQ(error.subject, "machine.gpus");
  EXPECT_NE(error.accepted.find("1 to 8"), std::string::npos) << error.accepted;
}

TEST(JobMachine, AbsurdFiguresAreRefused) {
  for (const double gib : {-1.0, 0.0, 1e30}) {
    facts::Job job = job_on("dgx-h100");
    job.machine.ram_gib = gib;
    const Error error = error_of(own_catalog().machine_of(job, "."));
    EXPECT_EQ(error.code, ErrorCode::bad_input) << gib;
    EXPECT_EQ(error.subject, "machine.ram_gib");
  }
}

TEST(JobMachine, AMisspeltIdSuggests) {
  const Error error = error_of(own_catalog().machine_of(job_on("dgx-h1000"), "."));
  EXPECT_EQ(error.code, ErrorCode::unknown_name);
  EXPECT_NE(error.hint.find("did you mean dgx-h100"), std::string::npos) << error.hint;
}

TEST(JobMachine, AMachineFileIsRelativeToTheJob) {
  const TemporaryFolder folder;
  const facts::Machine original = value_of(own_catalog().machine("dgx-h100"));
  folder.write("hosts/mine.json", codec::to_json(codec::to_value(original)));
  facts::Job job = job_on("hosts/mine.json");
  job.machine.ram_gib = 1024;
  const facts::Machine machine = value_of(own_catalog().machine_of(job, folder.path()));
  EXPECT_EQ(machine.gpus, 8);
  EXPECT_EQ(*machine.gpu.memory, *original.gpu.memory);
  EXPECT_EQ(*machine.host.memory, 1024_GiB);
}

TEST(JobMachine, AMachineFileThatIsNotThereNamesItsPath) {
  const TemporaryFolder folder;
  const Error error = error_of(own_catalog().machine_of(job_on("mine.json"), folder.path()));
  EXPECT_EQ(error.code, ErrorCode::unreadable);
  EXPECT_NE(to_text(error).find("mine.json"), std::string::npos) << to_text(error);
}

}  // namespace
}  // namespace steelyard::catalog
