// GEMM rates through libraries that pretend to be the CUDA driver, cuBLASLt and NVML
// (tests/support/fake_*.cpp).
#include "probe/gemm_rates.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "probe/machine.h"
#include "sense/nvml.h"

namespace steelyard::probe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class GemmTest : public testing::Test {
 protected:
  ~GemmTest() override {
    for (const char* name : {"FAKE_GPUS", "FAKE_CUDA", "FAKE_CUBLASLT"}) unsetenv(name);
  }
  static facts::Topology measured(const char* blas, const char* gpus = "count=1",
                                  const char* library = FAKE_CUBLASLT) {
    setenv("FAKE_GPUS", gpus, 1);
    setenv("FAKE_CUBLASLT", blas, 1);
    facts::Topology topology;
    sense::join(topology, sense::ask_nvml(FAKE_NVML));
    measure_gemms(topology, {.cuda = FAKE_CUDA,
                             .cublaslt = library,
                             .nvml = FAKE_NVML,
                             .sizes = {256, 1024},
                             .run = Seconds(1e-5),
                             .runs = 3});
    return topology;
  }
  static long held(const char* library, const char* function) {
    void* const opened = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    if (opened == nullptr) return 0;
    const auto ask = reinterpret_cast<long (*)()>(dlsym(opened, function));
    const long held = ask();
    dlclose(opened);
    return held;
  }
};

TEST_F(GemmTest, TheBestSizeOfEachPrecision) {
  const facts::Topology topology = measured("tf32=400 fp16=790 bf16=800 fp8=1500");
  const facts::GpuRates& rates = topology.gpus.at(0).rates;
  EXPECT_NEAR(rates.tf32->value(), 400e12, 1e9);
  EXPECT_NEAR(rates.fp16->value(), 790e12, 1e9);
  EXPECT_NEAR(rates.bf16->value(), 800e12, 1e9);
  EXPECT_NEAR(rates.fp8->value(), 1500e12, 1e9);
  EXPECT_THAT(rates.bf16.note, HasSubstr("1024 cubed, within 0 %; cuBLASLt, 3 runs of"));
  EXPECT_THAT(rates.bf16.note, Not(HasSubstr("held back")));
  EXPECT_THAT(topology.gpus[0].problems, IsEmpty());
  EXPECT_THAT(topology.warnings, IsEmpty());
  EXPECT_EQ(held(FAKE_CUBLASLT, "fake_cublaslt_held"), 0);
  EXPECT_EQ(held(FAKE_CUDA, "fake_cuda_held"), 0);
}

TEST_F(GemmTest, WhatIsNotSupportedStaysUnknown) {
  const facts::Topology old = measured("bf16=none fp8=none");
  EXPECT_TRUE(old.gpus.at(0).rates.fp16);
  EXPECT_FALSE(old.gpus[0].rates.bf16);
  EXPECT_FALSE(old.gpus[0].rates.fp8);
  EXPECT_THAT(old.gpus[0].problems, IsEmpty());
  EXPECT_FALSE(measured("small=none").gpus[0].rates.fp16) << "no size of a precision was tried on";
}

TEST_F(GemmTest, FailuresAreTheGpus) {
  EXPECT_THAT(measured("fails=13").gpus.at(0).problems,
              testing::Contains(HasSubstr("bf16 GEMM of 256: multiplying: cuBLASLt status 13")));
  EXPECT_THAT(measured("create=1").gpus.at(0).problems,
              ElementsAre(HasSubstr("handle: cuBLASLt status 1")));
  setenv("FAKE_CUDA", "memory=out", 1);
  EXPECT_THAT(measured("").gpus.at(0).problems,
              testing::Contains(HasSubstr("CUDA_ERROR_OUT_OF_MEMORY")));
  setenv("FAKE_CUDA", "init=100", 1);
  EXPECT_FALSE(measured("").gpus.at(0).rates.bf16);
  unsetenv("FAKE_CUDA");
  EXPECT_THAT(measured("", "count=1", "/nowhere/libcublasLt.so").warnings,
              ElementsAre(HasSubstr("cannot be loaded")));
  EXPECT_THAT(measured("", "count=1", "libz.so.1").warnings, ElementsAre(HasSubstr("lacks")));
  EXPECT_EQ(held(FAKE_CUBLASLT, "fake_cublaslt_held"), 0);
  EXPECT_EQ(held(FAKE_CUDA, "fake_cuda_held"), 0);
}

TEST_F(GemmTest, AClockThatIsHeldBackIsSaid) {
  const facts::Topology power = measured("", "count=1 throttle=4");
  EXPECT_THAT(power.gpus.at(0).rates.bf16.note, HasSubstr(", held back by the power limit"));
  EXPECT_THAT(power.gpus[0].problems, IsEmpty()) << "the power limit holds every large card back";
  const facts::Topology heat = measured("", "count=1 throttle=64");
  EXPECT_THAT(heat.gpus.at(0).rates.bf16.note, HasSubstr("held back by heat"));
  EXPECT_THAT(heat.gpus[0].problems,
              testing::Contains("bf16 GEMM: the clock was held back by heat"));
}

TEST_F(GemmTest, TheMachineFileHasThem) {
  const facts::Topology topology = measured("bf16=700 fp8=1400");
  facts::Gpu known;
  known.name = "card of the catalogue";
  known.peak.bf16 = {FlopsPerSecond(989e12), facts::Provenance::catalogue, "data sheet"};
  const facts::Gpu gpu = machine_of(topology, known, {}, "today").gpu;
  EXPECT_NEAR(gpu.measured_bf16->value(), 700e12, 1e9);
  EXPECT_EQ(gpu.measured_bf16.from, facts::Provenance::measured);
  EXPECT_EQ(gpu.peak.bf16->value(), 989e12) << "the data sheet's peak stays";
  EXPECT_FALSE(gpu.peak.fp8) << "the catalogue's word on a card it knows";

  const facts::Gpu unknown = machine_of(topology, std::nullopt, {}, "today").gpu;
  EXPECT_NEAR(unknown.peak.fp8->value(), 1400e12, 1e9);
  EXPECT_THAT(unknown.peak.bf16.note, HasSubstr("no data sheet"));
}

}  // namespace
}  // namespace steelyard::probe
