// The machine file that a plan reads: measured figures before the catalogue's.
#include "probe/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace steelyard::probe {
namespace {

using facts::Provenance;
using testing::HasSubstr;

facts::Gpu catalogued() {
  facts::Gpu gpu;
  gpu.id = "h100-sxm-80gb";
  gpu.name = "H100 SXM5 80GB";
  gpu.memory = {Bytes(1000), Provenance::catalogue};
  gpu.memory_bandwidth = {BytesPerSecond(3.35e12), Provenance::catalogue};
  gpu.host_link = {BytesPerSecond(63e9), Provenance::catalogue};
  gpu.link = {BytesPerSecond(450e9), Provenance::catalogue};
  return gpu;
}

facts::Gpu processors_only() {
  facts::Gpu gpu;
  gpu.id = "cpu";
  gpu.vendor = "host";
  return gpu;
}

facts::Topology server(int gpus) {
  facts::Topology t;
  t.processors.sockets = {2, Provenance::measured};
  t.limits.memory = {Bytes(std::int64_t{1} << 40), Provenance::measured, "limit of a group"};
  t.limits.cores = {24, Provenance::measured};
  t.limits.cpus = {48.0, Provenance::measured};
  for (int i = 0; i < gpus; ++i) {
    facts::GpuDevice& gpu = t.gpus.emplace_back();
    gpu.vendor = "nvidia";
    gpu.name = "NVIDIA H100 80GB HBM3";
    gpu.memory = {Bytes(2000), Provenance::measured, "NVML"};
    gpu.link_most.transfers = {32.0, Provenance::measured};
    gpu.link_most.lanes = {16, Provenance::measured};
    gpu.link_most.rate = {BytesPerSecond(63e9), Provenance::derived};
  }
  return t;
}

TEST(ProbedMachine, HostIsWhatTheProcessMayUse) {
  const facts::Machine machine = machine_of(server(8), catalogued(), processors_only(), "today");
  EXPECT_EQ(machine.gpus, 8);
  EXPECT_EQ(machine.host.memory.value, Bytes(std::int64_t{1} << 40));
  EXPECT_EQ(machine.host.memory.note, "limit of a group");
  EXPECT_EQ(machine.host.cores.value, 24);
  EXPECT_EQ(machine.host.threads.value, 48);
  EXPECT_EQ(machine.sources, (std::vector<std::string>{"steelyard probe, today"}));
}

TEST(ProbedMachine, MeasuredGoesBeforeTheCatalogue) {
  facts::Topology t = server(1);
  facts::GpuDevice& gpu = t.gpus[0];
  gpu.rates.to_device = {BytesPerSecond(55e9), Provenance::measured};
  gpu.rates.from_device = {BytesPerSecond(53e9), Provenance::measured};
  gpu.rates.bf16 = {FlopsPerSecond(7e14), Provenance::measured};
  gpu.program_memory = {Bytes(1900), Provenance::measured};
  gpu.links = {{facts::GpuPeer::gpu_switch, "", 18, {BytesPerSecond(478e9), Provenance::measured}},
               {facts::GpuPeer::host, "", 1, {BytesPerSecond(900e9), Provenance::measured}}};
  const facts::Gpu made = machine_of(t, catalogued(), processors_only(), "").gpu;
  EXPECT_EQ(made.host_link.value, BytesPerSecond(53e9)) << "the slower way";
  EXPECT_EQ(made.host_link.from, Provenance::measured);
  EXPECT_EQ(made.measured_bf16.value, FlopsPerSecond(7e14));
  EXPECT_EQ(made.memory.value, Bytes(1900));
  EXPECT_EQ(made.link.value, BytesPerSecond(478e9)) << "without the link to the host";
  EXPECT_EQ(made.memory_bandwidth.from, Provenance::catalogue) << "nobody measured it";
}

TEST(ProbedMachine, TheCatalogueStandsWhereNothingWasMeasured) {
  const facts::Gpu made = machine_of(server(1), catalogued(), processors_only(), "").gpu;
  EXPECT_EQ(made.host_link.from, Provenance::catalogue);
  EXPECT_EQ(made.memory.value, Bytes(1000)) << "the driver's total is not what programs get";
  EXPECT_EQ(made.link.from, Provenance::catalogue);
}

TEST(ProbedMachine, AnUnknownCardHasWhatWasFound) {
  const facts::Gpu made = machine_of(server(2), std::nullopt, processors_only(), "").gpu;
  EXPECT_EQ(made.name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(made.memory.value, Bytes(2000));
  EXPECT_EQ(made.host_link.value, BytesPerSecond(63e9));
  EXPECT_EQ(made.host_link.from, Provenance::derived) << "raw: not measured";
  EXPECT_FALSE(made.memory_bandwidth);
  EXPECT_FALSE(made.peak.bf16);
}

TEST(ProbedMachine, FewerLanesAreALesserLink) {
  facts::Topology t = server(1);
  t.gpus[0].link.lanes = {8, Provenance::measured};
  const facts::Gpu made = machine_of(t, std::nullopt, processors_only(), "").gpu;
  EXPECT_EQ(made.host_link.value, BytesPerSecond(31.5e9));
}

TEST(ProbedMachine, WithoutGpusTheHostComputes) {
  const facts::Machine machine = machine_of(server(0), std::nullopt, processors_only(), "");
  EXPECT_EQ(machine.gpu.vendor, "host");
  EXPECT_EQ(machine.gpus, 1);
  EXPECT_FALSE(machine.network_per_gpu);
}

TEST(ProbedMachine, InfinibandIsSharedOverTheGpus) {
  facts::Topology t = server(8);
  for (int i = 0; i < 8; ++i) {
    facts::NetworkInterface& one = t.network.emplace_back();
    one.kind = "infiniband";
    one.up = i != 7;
    one.speed = {BytesPerSecond(50e9), Provenance::measured};
  }
  const facts::Machine machine = machine_of(t, catalogued(), processors_only(), "");
  EXPECT_NEAR(machine.network_per_gpu->value(), 7 * 50e9 / 8, 1);
  EXPECT_THAT(machine.network_per_gpu.note, HasSubstr("7 InfiniBand ports"));
}

TEST(ProbedMachine, DrivesSayCapacityAndNoRate) {
  facts::Topology t = server(1);
  for (const char* name : {"nvme0n1", "nvme1n1", "sda"}) {
    facts::Drive& drive = t.drives.emplace_back();
    drive.name = name;
    drive.size = {Bytes(1000), Provenance::measured};
    drive.rotational = {false, Provenance::measured};
  }
  const facts::Machine machine = machine_of(t, catalogued(), processors_only(), "");
  ASSERT_EQ(machine.storage.size(), 1U);
  EXPECT_EQ(machine.storage[0].capacity.value, Bytes(2000));
  EXPECT_FALSE(machine.storage[0].read);
}

TEST(ProbedMachine, CarriesNodesAndWhatHangsOnThem) {
  facts::Topology t = server(2);
  t.numa.resize(3);
  t.numa[0].cpus = {0, 1, 4, 5};
  t.numa[0].socket = {0, Provenance::measured};
  t.numa[1].id = 1;
  t.numa[1].cpus = {2, 3, 6, 7};
  t.numa[1].socket = {1, Provenance::measured};
  t.numa[1].memory = {Bytes(512), Provenance::measured};
  t.numa[2].id = 2;
  t.numa[2].of_gpu = true;
  t.gpus[0].numa_node = {1, Provenance::measured};
  t.gpus[1].usable = false;
  t.drives.emplace_back().name = "nvme0n1";
  t.drives[0].numa_node = {0, Provenance::measured};
  t.network.resize(2);
  t.network[0].name = "mlx5_0";
  t.network[0].up = true;
  t.network[0].numa_node = {2, Provenance::measured};
  t.network[1].name = "mlx5_1";
  const facts::HostNuma numa = machine_of(t, catalogued(), processors_only(), "today").host.numa;
  ASSERT_EQ(numa.nodes.size(), 2U) << "no processor is on a GPU's memory";
  EXPECT_EQ(numa.nodes[1].cpus, "2-3,6-7");
  EXPECT_EQ(numa.nodes[1].memory.value, Bytes(512));
  ASSERT_EQ(numa.gpus.size(), 1U);
  EXPECT_EQ(numa.gpus[0].node.value, 1);
  EXPECT_EQ(numa.drives[0].node.value, 0);
  ASSERT_EQ(numa.nics.size(), 1U);
  EXPECT_FALSE(numa.nics[0].node) << "no node of the machine file";
}

}  // namespace
}  // namespace steelyard::probe
