#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/report.h"
#include "report/sample_plan.h"
#include "support/golden.h"

namespace steelyard {
namespace {

using namespace literals;
using ::testing::HasSubstr;

facts::Machine machine() {
  facts::Machine box = testing::sample_plan().machine;
  box.provider = "NVIDIA";
  box.gpu.vendor = "NVIDIA";
  box.gpu.architecture = "hopper";
  box.gpu.compute_capability = 9.0;
  box.gpu.memory = {Bytes(85'520'809'984), facts::Provenance::catalogue, "driver total"};
  box.gpu.memory_bandwidth = {BytesPerSecond(3.35e12), facts::Provenance::catalogue, ""};
  box.gpu.peak.bf16 = {989_TFLOP_per_s, facts::Provenance::catalogue, "dense"};
  box.gpu.peak.fp8.note = "not published";
  box.gpu.power_watts = {700.0, facts::Provenance::catalogue, ""};
  box.gpu.sources = {"vendor data sheet"};
  box.gpu.confidence = "high";
  box.host.cpu_model = "2 x Xeon 8480C";
  box.host.memory = {2_TiB, facts::Provenance::catalogue, ""};
  box.host.threads = {224, facts::Provenance::derived, "two threads a core"};
  box.storage.emplace_back();
  box.storage.back().name = "nvme";
  box.storage.back().read = {BytesPerSecond(55e9), facts::Provenance::assumed, "8 drives"};
  box.price = facts::Price{98.32, "USD", "2026-07-20", "price list"};
  box.sources = {"user guide"};
  box.confidence = "medium";
  box.notes = "a note";
  return box;
}

TEST(MachineText, Machine) {
  testing::expect_golden(report::machine_text(machine(), {}), "report/golden/machine");
}

TEST(MachineText, Gpu) {
  testing::expect_golden(report::gpu_text(machine().gpu, {}), "report/golden/gpu");
}

TEST(MachineText, UnknownIsNotZero) {
  EXPECT_THAT(report::gpu_text(machine().gpu, {}), HasSubstr("unknown      not published"));
  EXPECT_THAT(report::machine_text(facts::Machine{}, {}),
              HasSubstr("host memory               unknown"));
}

}  // namespace
}  // namespace steelyard
