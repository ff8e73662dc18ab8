#include <cmath>
#include <set>
#include <string>

#include "catalog/catalog.h"
#include "catalog_fixture.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

using facts::Provenance;
using namespace literals;

double ratio_installed(const facts::Machine& machine) {
  return (*machine.host.memory / (*machine.gpu.memory * machine.gpus)).value();
}

TEST(MachineEntry, DgxH100HoldsThreeGibibytesOfRamPerGibibyteOfVram) {
  const facts::Machine machine = value_of(own_catalog().machine("dgx-h100"));
  EXPECT_EQ(machine.kind, "appliance");
  EXPECT_EQ(machine.gpus, 8);
  EXPECT_EQ(machine.gpu.id, "h100-sxm-80gb");
  EXPECT_EQ(*machine.host.memory, 2_TiB);
  EXPECT_EQ(*machine.host.threads, 224);
  EXPECT_EQ(*machine.host.cores, 112);
  // 2048 GiB / (8 x 81,009 MiB / 1024) = 2048 / 632.9 = 3.236.
  EXPECT_NEAR(ratio_installed(machine), 3.236, 0.001);
  // 3200 Gbit/s per node: 400 Gbit/s = 50 GB/s per GPU.
  EXPECT_DOUBLE_EQ(machine.network_per_gpu->value(), 50e9);
  EXPECT_EQ(machine.network_per_gpu.from, Provenance::derived);
  ASSERT_EQ(machine.storage.size(), 1U);
  EXPECT_EQ(machine.storage[0].name, "nvme");
  EXPECT_EQ(*machine.storage[0].capacity, 30720_GB);
  EXPECT_FALSE(machine.storage[0].read);
  EXPECT_FALSE(machine.price);
}

TEST(MachineEntry, AwsP5HasAPriceAndTwoKindsOfStorage) {
  const facts::Machine machine = value_of(own_catalog().machine("aws:p4d.24xlarge"));
  ASSERT_TRUE(machine.price);
  EXPECT_DOUBLE_EQ(machine.price->per_hour, 21.957642);
  EXPECT_EQ(machine.price->currency, "USD");
  EXPECT_EQ(machine.price->date, "2026-07-20");
  EXPECT_FALSE(machine.price->source.empty());
  ASSERT_EQ(machine.storage.size(), 2U);
  EXPECT_EQ(machine.storage[1].name, "network");
  // 19 Gbit/s = 2.375 GB/s; its size is not a property of the machine.
  EXPECT_DOUBLE_EQ(machine.storage[1].read->value(), 2.375e9);
  EXPECT_FALSE(machine.storage[1].capacity);
  EXPECT_EQ(*machine.host.memory, 1152_GiB);
  EXPECT_FALSE(machine.host.cores);
  // 400 Gbit/s over 8 GPUs.
  EXPECT_DOUBLE_EQ(machine.network_per_gpu->value(), 6.25e9);
}

TEST(MachineEntry, AnOlderHostHalvesTheHostLinkPerGeneration) {
  // B300 brings PCIe 6 (121 GB/s); this host has PCIe 5.
  const facts::Machine machine = value_of(own_catalog().machine("dgx-b300"));
  EXPECT_DOUBLE_EQ(machine.gpu.host_link->value(), 60.5e9);
  EXPECT_EQ(machine.gpu.host_link.from, Provenance::derived);
}

TEST(MachineEntry, AMachineMayNameAnotherCapacityThanTheCardsLabel) {
  // 277 GB per GPU in this workstation; the card's label is 288.
  const facts::Machine machine = value_of(own_catalog().machine("dgx-station-gb300"));
  EXPECT_EQ(*machine.gpu.memory, 277_GiB);
  EXPECT_EQ(machine.gpu.memory.from, Provenance::assumed);
}

TEST(MachineEntry, UnknownHostsStayUnknown) {
  const facts::Machine machine = value_of(own_catalog().machine("vast:8x-RTX_4090"));
  EXPECT_FALSE(machine.host.memory);
  EXPECT_FALSE(machine.host.threads);
  EXPECT_FALSE(machine.network_per_gpu);
  EXPECT_TRUE(machine.storage.empty());
}

// The derived figures of the file agree with what the planner derives, but for what the driver
// keeps of a card: they divide by what its tool reports, the planner by what CUDA programs see.
void expect_own_ratio(const facts::Value& entry, const facts::Machine& machine) {
  const facts::Value* ratios = entry.find("ratios");
  const facts::Value* stated = ratios->find("host_ram_over_vram");
  const facts::Value* usable = entry.find("gpu")->find("vram_total_usable_gib");
  if (stated == nullptr || stated->as_real() == nullptr || !machine.host.memory) return;
  if (usable->is_null()) return;
  EXPECT_NEAR(ratio_installed(machine) / *stated->as_real(), 1.0, 0.03);
}

TEST(MachineEntry, EveryEntryLoadsAndNullNeverBecomesZero) {
  const facts::Value content = value_of(codec::read_value(own_folder() / "machines.json"));
  const facts::Array* list = content.find("machines")->as_array();
  ASSERT_NE(list, nullptr);
  EXPECT_EQ(list->size(), 165U);
  const Catalog catalog = own_catalog();
  std::set<std::string> ids;
  for (const facts::Value& entry : *list) {
    const std::string id = *entry.find("id")->as_text();
    SCOPED_TRACE(id);
    EXPECT_TRUE(ids.insert(id).second) << "twice";
    EXPECT_EQ(id.find('/'), std::string::npos) << "would be taken for a file";
    const facts::Machine machine = value_of(catalog.machine(id));
    EXPECT_EQ(machine.id, id);
    EXPECT_GE(machine.gpus, 1);
    EXPECT_FALSE(machine.sources.empty());
    const facts::Value& host = *entry.find("host");
    EXPECT_EQ(machine.host.memory.value.has_value(), !host.find("ram_gib")->is_null());
    EXPECT_EQ(machine.host.threads.value.has_value(), !host.find("vcpus")->is_null());
    EXPECT_EQ(machine.host.cores.value.has_value(), !host.find("physical_cores")->is_null());
    EXPECT_EQ(machine.network_per_gpu.value.has_value(),
              !entry.find("network_gbit_per_s")->is_null());
    const facts::Value& price = *entry.find("price");
    EXPECT_EQ(machine.price.has_value(), !price.is_null() && !price.find("per_hour")->is_null());
    if (machine.host.memory) {
      EXPECT_GT(machine.host.memory->value(), 0);
    }
    expect_own_ratio(entry, machine);
  }
}

TEST(MachineEntry, AnUnknownIdNamesTheNearestAndTheCommand) {
  const Error error = error_of(own_catalog().machine("dgx-h10"));
  EXPECT_EQ(error.code, ErrorCode::unknown_name);
  EXPECT_NE(error.hint.find("dgx-h100"), std::string::npos) << error.hint;
  EXPECT_NE(error.hint.find("`steelyard list machines`"), std::string::npos) << error.hint;
}

TEST(MachineEntry, AnIdThatIsPartOfOthersSuggestsThose) {
  const Error error = error_of(own_catalog().machine("p5.48xlarge"));
  EXPECT_NE(error.hint.find("aws:p5.48xlarge"), std::string::npos) << error.hint;
}

TEST(MachineEntry, NodesOfAMachineWithPublishedTopology) {
  const facts::Machine machine = value_of(own_catalog().machine("dgx-a100-80gb"));
  const facts::HostNuma& numa = machine.host.numa;
  ASSERT_EQ(numa.nodes.size(), 8U);
  EXPECT_EQ(numa.nodes[3].cpus, "48-63,176-191");
  EXPECT_EQ(numa.nodes[4].socket.value, 1);
  EXPECT_EQ(numa.nodes[3].memory.value, 256_GiB);
  EXPECT_EQ(numa.nodes[3].cores.value, 16);
  EXPECT_EQ(numa.gpus[6].node.value, 5);
  EXPECT_FALSE(numa.source.empty());
}

TEST(MachineEntry, NodesKeepTheirPartOfAnotherHostMemory) {
  facts::Job job;
  job.machine.name = "dgx-h100";
  job.machine.ram_gib = 192;
  job.machine.cores = 64;
  const facts::Machine machine = value_of(own_catalog().machine_of(job, {}));
  EXPECT_EQ(machine.host.numa.nodes[1].memory.value, 96_GiB);
  EXPECT_EQ(machine.host.numa.nodes[1].cpus, "");
}

}  // namespace
}  // namespace steelyard::catalog
