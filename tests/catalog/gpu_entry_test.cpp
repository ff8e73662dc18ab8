#include <set>
#include <string>

#include "catalog/catalog.h"
#include "catalog_fixture.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

using facts::Provenance;
using namespace literals;

facts::Value entries(const char* file, const char* key) {
  const facts::Value content = value_of(codec::read_value(own_folder() / file));
  const facts::Value* list = content.find(key);
  return list == nullptr ? facts::Value() : *list;
}

TEST(GpuEntry, H100SxmIsWhatItsEntrySays) {
  const facts::Gpu gpu = value_of(own_catalog().gpu("h100-sxm-80gb"));
  EXPECT_EQ(gpu.name, "H100 SXM5 80GB");
  EXPECT_EQ(gpu.vendor, "nvidia");
  EXPECT_EQ(gpu.architecture, "hopper");
  EXPECT_EQ(gpu.compute_capability, 9.0);
  // 81,559 MiB as nvidia-smi reports it.
  EXPECT_EQ(*gpu.memory, 81009_MiB);
  EXPECT_EQ(gpu.memory.from, Provenance::catalogue);
  EXPECT_DOUBLE_EQ(gpu.memory_bandwidth->value(), 3350e9);
  EXPECT_DOUBLE_EQ(gpu.peak.bf16->value(), 989e12);
  EXPECT_DOUBLE_EQ(gpu.peak.tf32->value(), 494.5e12);
  EXPECT_DOUBLE_EQ(gpu.peak.fp32->value(), 67e12);
  EXPECT_DOUBLE_EQ(gpu.measured_bf16->value(), 794.5e12);
  // NVLink4: 900 GB/s both ways together, 450 GB/s in one.
  EXPECT_DOUBLE_EQ(gpu.link->value(), 450e9);
  EXPECT_DOUBLE_EQ(gpu.host_link->value(), 63e9);
  EXPECT_EQ(gpu.confidence, "high");
  EXPECT_FALSE(gpu.sources.empty());
}

// The driver denies GeForce cards access to each other's memory over PCIe.
TEST(GpuEntry, PeerAccessIsAllowedUnlessTheEntryDeniesIt) {
  EXPECT_TRUE(value_of(own_catalog().gpu("l4")).peer_access);
  EXPECT_TRUE(value_of(own_catalog().gpu("h100-sxm-80gb")).peer_access);
  EXPECT_FALSE(value_of(own_catalog().gpu("rtx-4090")).peer_access);
  EXPECT_FALSE(value_of(own_catalog().gpu("rtx-3090")).peer_access);
}

TEST(GpuEntry, ABridgeJoinsAPair) {
  EXPECT_EQ(value_of(own_catalog().gpu("rtx-a6000")).link_gpus, 2);
  EXPECT_EQ(value_of(own_catalog().gpu("a100-pcie-80gb")).link_gpus, 2);
  EXPECT_EQ(value_of(own_catalog().gpu("a100-sxm-80gb")).link_gpus, 0);
}

TEST(GpuEntry, WhatCudaSeesComesBeforeWhatTheDriverReports) {
  EXPECT_EQ(*value_of(own_catalog().gpu("a100-pcie-40gb")).memory, 40339_MiB);
}

TEST(GpuEntry, TheVendorsLabelIsAnAssumption) {
  const facts::Gpu gpu = value_of(own_catalog().gpu("p100-pcie-16gb"));
  EXPECT_EQ(*gpu.memory, 16_GiB);
  EXPECT_EQ(gpu.memory.from, Provenance::assumed);
  EXPECT_NE(gpu.memory.note.find("label"), std::string::npos);
}

TEST(GpuEntry, CardsWithoutBf16DoNotGetAnyRateForIt) {
  const facts::Gpu gpu = value_of(own_catalog().gpu("v100-sxm-16gb"));
  EXPECT_FALSE(gpu.peak.bf16);
  EXPECT_EQ(gpu.peak.bf16.from, Provenance::unknown);
  EXPECT_DOUBLE_EQ(gpu.peak.fp16->value(), 125e12);
}

TEST(GpuEntry, NvlinkToTheHostComesBeforePcie) {
  // Grace: 450 GB/s one way for the single GPU of a GH200.
  EXPECT_DOUBLE_EQ(value_of(own_catalog().gpu("gh200-96gb")).host_link->value(), 450e9);
}

TEST(GpuEntry, ALinkOfZeroIsKnownToBeAbsent) {
  const facts::Gpu gpu = value_of(own_catalog().gpu("rtx-4090"));
  ASSERT_TRUE(gpu.link);
  EXPECT_EQ(gpu.link->value(), 0.0);
  EXPECT_NE(gpu.link.note.find("no direct link"), std::string::npos);
}

TEST(GpuEntry, RecalledFiguresSayThatTheyAre) {
  const facts::Gpu gpu = value_of(own_catalog().gpu("p100-pcie-16gb"));
  EXPECT_EQ(gpu.memory_bandwidth.note, "recalled, not re-read in a source");
}

TEST(GpuEntry, EveryEntryLoadsAndNullNeverBecomesZero) {
  const facts::Value list = entries("gpus.json", "gpus");
  ASSERT_NE(list.as_array(), nullptr);
  EXPECT_EQ(list.as_array()->size(), 59U);
  std::set<std::string> ids;
  for (const facts::Value& entry : *list.as_array()) {
    const std::string id = *entry.find("id")->as_text();
    SCOPED_TRACE(id);
    EXPECT_TRUE(ids.insert(id).second) << "twice";
    const facts::Gpu gpu = value_of(own_catalog().gpu(id));
    EXPECT_EQ(gpu.id, id);
    EXPECT_EQ(gpu.memory.value.has_value(), gpu.vendor != "host");  // no card, no memory of one
    if (gpu.memory) {
      EXPECT_GT(gpu.memory->value(), 0);
    }
    EXPECT_FALSE(gpu.sources.empty());
    EXPECT_TRUE(gpu.confidence == "high" || gpu.confidence == "medium" || gpu.confidence == "low");
    const facts::Value& tflops = *entry.find("dense_tflops");
    EXPECT_EQ(gpu.peak.fp32.value.has_value(), !tflops.find("fp32")->is_null());
    EXPECT_EQ(gpu.peak.tf32.value.has_value(), !tflops.find("tf32")->is_null());
    EXPECT_EQ(gpu.peak.fp16.value.has_value(), !tflops.find("fp16")->is_null());
    EXPECT_EQ(gpu.peak.bf16.value.has_value(), !tflops.find("bf16")->is_null());
    EXPECT_EQ(gpu.peak.fp8.value.has_value(), !tflops.find("fp8")->is_null());
    EXPECT_EQ(gpu.link.value.has_value(), !entry.find("link_both_ways_gb_per_s")->is_null());
    EXPECT_EQ(gpu.memory_bandwidth.value.has_value(),
              !entry.find("memory_bandwidth_gb_per_s")->is_null());
    EXPECT_EQ(gpu.power_watts.value.has_value(), !entry.find("power_watts")->is_null());
    EXPECT_EQ(gpu.compute_capability.has_value(), gpu.vendor == "nvidia");
    EXPECT_EQ(gpu.architecture.empty(), gpu.vendor != "nvidia");
  }
}

TEST(GpuEntry, AnUnknownIdNamesTheNearestAndTheCommand) {
  const Error error = error_of(own_catalog().gpu("h100-sxm-80g"));
  EXPECT_EQ(error.code, ErrorCode::unknown_name);
  EXPECT_EQ(error.found, "h100-sxm-80g");
  EXPECT_NE(error.hint.find("did you mean h100-sxm-80gb"), std::string::npos) << error.hint;
  EXPECT_NE(error.hint.find("`steelyard list gpus`"), std::string::npos) << error.hint;
}

}  // namespace
}  // namespace steelyard::catalog
