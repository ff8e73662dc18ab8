// GPUs through libraries that pretend to be NVML and the CUDA driver (tests/support/fake_*.cpp).
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "probe/gpu_copies.h"
#include "probe/machine.h"
#include "sense/nvml.h"

namespace steelyard::probe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class GpusTest : public testing::Test {
 protected:
  ~GpusTest() override {
    unsetenv("FAKE_GPUS");
    unsetenv("FAKE_CUDA");
  }
  static sense::NvmlAnswer ask(const char* gpus, const char* library = FAKE_NVML) {
    setenv("FAKE_GPUS", gpus, 1);
    return sense::ask_nvml(library);
  }
  static facts::Topology measured(const char* gpus, const char* cuda,
                                  const char* library = FAKE_CUDA) {
    facts::Topology topology;
    sense::join(topology, ask(gpus));
    setenv("FAKE_CUDA", cuda, 1);
    measure_copies(topology, {.library = library,
                              .buffer = Bytes(2 << 20),
                              .host_memory_free = Bytes(1 << 30),
                              .runs = 3});
    return topology;
  }
  // Everything that the fake driver gave away must be given back.
  static long held() {
    void* library = dlopen(FAKE_CUDA, RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) return 0;
    const auto ask_held = reinterpret_cast<long (*)()>(dlsym(library, "fake_cuda_held"));
    const long held = ask_held();
    dlclose(library);
    return held;
  }
};

TEST_F(GpusTest, TellsWhatNvmlTells) {
  const sense::NvmlAnswer answer = ask("count=2");
  EXPECT_EQ(answer.problem, "");
  EXPECT_EQ(answer.driver, "550.54.15");
  ASSERT_EQ(answer.gpus.size(), 2U);
  const facts::GpuDevice& gpu = answer.gpus[1];
  EXPECT_EQ(gpu.name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(gpu.pci, "0000:2b:00.0");
  EXPECT_EQ(gpu.memory.value, Bytes(std::int64_t{81559} << 20));
  EXPECT_EQ(gpu.memory_used.value, Bytes(std::int64_t{600} << 20));
  EXPECT_EQ(gpu.compute_capability, 9.0);
  EXPECT_EQ(gpu.power_limit_watts.value, 700.0);
  EXPECT_EQ(gpu.ecc.value, true);
  EXPECT_EQ(gpu.mig.value, false);
  EXPECT_TRUE(gpu.instances.empty());
  // 32e9 x 16 lanes / 8 x 128/130
  EXPECT_NEAR(gpu.link.rate->value(), 63.0e9, 0.1e9);
  EXPECT_THAT(gpu.problems, IsEmpty());
}

TEST_F(GpusTest, LinksOfOneSwitchAreOne) {
  const facts::GpuDevice gpu = ask("").gpus.at(0);
  ASSERT_EQ(gpu.links.size(), 1U);
  EXPECT_EQ(gpu.links[0].peer, facts::GpuPeer::gpu_switch);
  EXPECT_EQ(gpu.links[0].count, 18);
  EXPECT_NEAR(gpu.links[0].rate->value(), 18 * 26.562e9, 1e6);
}

TEST_F(GpusTest, LinksToGpusAreTakenApart) {
  const facts::GpuDevice gpu = ask("nvlink=gpu links=12 speed=common").gpus.at(0);
  ASSERT_EQ(gpu.links.size(), 2U);  // by turns to the two addresses
  EXPECT_EQ(gpu.links[0].peer_pci, "0000:1b:00.0");
  EXPECT_EQ(gpu.links[1].peer_pci, "0000:2b:00.0");
  EXPECT_EQ(gpu.links[0].count, 6);
  EXPECT_NEAR(gpu.links[1].rate->value(), 6 * 26.562e9, 1e6);
}

TEST_F(GpusTest, ALinkOfUnknownSpeedIsNotZero) {
  const facts::GpuDevice gpu = ask("speed=none").gpus.at(0);
  ASSERT_EQ(gpu.links.size(), 1U);
  EXPECT_EQ(gpu.links[0].count, 18);
  EXPECT_FALSE(gpu.links[0].rate);
}

TEST_F(GpusTest, WhatACardCannotDoIsUnknownAndNoProblem) {
  const facts::GpuDevice gpu = ask("ecc=unsupported mig=unsupported nvlink=none").gpus.at(0);
  EXPECT_FALSE(gpu.ecc);
  EXPECT_FALSE(gpu.mig);
  EXPECT_THAT(gpu.links, IsEmpty());
  EXPECT_THAT(gpu.problems, IsEmpty());
}

TEST_F(GpusTest, MigInstancesAreListed) {
  const facts::GpuDevice gpu = ask("mig=3").gpus.at(0);
  EXPECT_EQ(gpu.mig.value, true);
  ASSERT_EQ(gpu.instances.size(), 3U);
  EXPECT_EQ(gpu.instances[2].name, "NVIDIA H100 80GB HBM3 MIG 1g.10gb");
  EXPECT_EQ(gpu.instances[2].memory.value, Bytes(std::int64_t{9856} << 20));
}

TEST_F(GpusTest, ALostGpuIsNamedAndTheOthersAreRead) {
  const sense::NvmlAnswer answer = ask("count=3 lost=1");
  ASSERT_EQ(answer.gpus.size(), 3U);
  EXPECT_THAT(answer.gpus[1].problems, ElementsAre("memory: GPU is lost"));
  EXPECT_FALSE(answer.gpus[1].memory);
  EXPECT_FALSE(answer.gpus[1].usable);
  EXPECT_TRUE(answer.gpus[2].memory);
  EXPECT_THAT(answer.gpus[2].problems, IsEmpty());
}

TEST_F(GpusTest, AGpuThatCannotBeOpenedKeepsItsPlace) {
  const sense::NvmlAnswer answer = ask("count=2 closed=0");
  ASSERT_EQ(answer.gpus.size(), 2U);
  EXPECT_THAT(answer.gpus[0].problems, ElementsAre("NVML does not open it: GPU is lost"));
}

TEST_F(GpusTest, NonsenseIsNotBelieved) {
  const facts::GpuDevice gpu = ask("memory=nonsense").gpus.at(0);
  EXPECT_FALSE(gpu.memory);
  EXPECT_THAT(gpu.problems, ElementsAre("memory: NVML answers what cannot be"));
}

TEST_F(GpusTest, AnOldLibraryLacksFunctions) {
  const facts::GpuDevice gpu = ask("", FAKE_OLD_NVML).gpus.at(0);
  EXPECT_TRUE(gpu.memory);
  EXPECT_FALSE(gpu.mig);
  EXPECT_THAT(gpu.problems, ElementsAre("MIG: this NVML is too old to tell"));
}

TEST_F(GpusTest, WithoutDriverOrLibraryItSaysSo) {
  EXPECT_EQ(ask("driver=missing").problem, "NVML does not start: Driver Not Loaded");
  EXPECT_TRUE(ask("driver=missing").loaded);
  const sense::NvmlAnswer none = ask("", "libno-such-nvml.so.1");
  EXPECT_FALSE(none.loaded);
  EXPECT_THAT(none.problem, HasSubstr("cannot be loaded"));
  EXPECT_THAT(ask("", FAKE_CUDA).problem, HasSubstr("lacks the functions of NVML"));
}

TEST_F(GpusTest, NoLibraryIsAWarningOnlyWhereACardIs) {
  const sense::NvmlAnswer none = ask("", "libno-such-nvml.so.1");
  facts::Topology empty;
  sense::join(empty, none);
  EXPECT_THAT(empty.warnings, IsEmpty());
  facts::Topology card;
  card.gpus.emplace_back().vendor = "nvidia";
  sense::join(card, none);
  EXPECT_THAT(card.warnings, ElementsAre(HasSubstr("cannot be loaded")));
}

TEST_F(GpusTest, TheKernelsListAndTheDriversAreOne) {
  facts::Topology topology;
  for (const char* address : {"0000:1b:00.0", "0000:99:00.0"}) {
    facts::GpuDevice& gpu = topology.gpus.emplace_back();
    gpu.vendor = "nvidia";
    gpu.pci = address;
    gpu.numa_node = {1, facts::Provenance::measured, "sysfs"};
  }
  sense::join(topology, ask("count=2"));
  ASSERT_EQ(topology.gpus.size(), 3U);
  EXPECT_EQ(topology.gpus[0].name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(topology.gpus[0].numa_node.value, 1);
  EXPECT_FALSE(topology.gpus[1].usable) << "another job's";
  EXPECT_EQ(topology.gpus[2].pci, "0000:2b:00.0") << "the kernel did not list it";
  EXPECT_EQ(alike_gpus(topology), 2);
}

TEST_F(GpusTest, CopiesAreMeasuredByTheDriversClock) {
  const facts::Topology topology = measured("", "to=50 from=40 pageable=10 inside=1000");
  const facts::GpuRates& rates = topology.gpus.at(0).rates;
  EXPECT_THAT(topology.gpus[0].problems, IsEmpty());
  EXPECT_NEAR(rates.to_device->value(), 50e9, 1e6);
  EXPECT_NEAR(rates.from_device->value(), 40e9, 1e6);
  EXPECT_NEAR(rates.to_device_pageable->value(), 10e9, 1e6);
  EXPECT_NEAR(rates.from_device_pageable->value(), 10e9, 1e6);
  EXPECT_NEAR(rates.device_copy->value(), 1000e9, 1e8);
  EXPECT_FALSE(rates.to_device_far) << "there is one NUMA node";
  EXPECT_FALSE(rates.bf16) << "not measured, so unknown";
  EXPECT_EQ(topology.gpus[0].program_memory.value, Bytes(std::int64_t{79647} << 20));
  EXPECT_THAT(rates.to_device.note, HasSubstr("3 copies of 2.0 MiB"));
  EXPECT_EQ(held(), 0);
}

TEST_F(GpusTest, WhatFailsIsSaidAndGivenBack) {
  EXPECT_THAT(measured("", "memory=out").gpus.at(0).problems,
              ElementsAre("memory of the GPU: CUDA_ERROR_OUT_OF_MEMORY"));
  EXPECT_EQ(held(), 0);
  EXPECT_THAT(measured("", "pinned=out").gpus.at(0).problems,
              ElementsAre("pinned host memory: CUDA_ERROR_OUT_OF_MEMORY"));
  EXPECT_EQ(held(), 0);
  const facts::Topology failed = measured("", "copy=fails");
  EXPECT_THAT(failed.gpus.at(0).problems,
              ElementsAre("host to GPU, pinned: CUDA_ERROR_LAUNCH_FAILED"));
  EXPECT_FALSE(failed.gpus[0].rates.to_device);
  EXPECT_EQ(held(), 0);
}

TEST_F(GpusTest, ADriverThatDoesNotStartIsAWarning) {
  EXPECT_THAT(measured("", "init=100").warnings,
              ElementsAre("the CUDA driver does not start: CUDA_ERROR_NO_DEVICE"));
  EXPECT_THAT(measured("", "", "libno-such-cuda.so.1").warnings,
              ElementsAre(HasSubstr("copies were not measured")));
  EXPECT_THAT(measured("", "", FAKE_NVML).warnings, ElementsAre(HasSubstr("lacks functions")));
}

}  // namespace
}  // namespace steelyard::probe
