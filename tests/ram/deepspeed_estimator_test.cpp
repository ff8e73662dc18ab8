#include "ram/deepspeed_estimator.h"

#include <gtest/gtest.h>

namespace steelyard::ram {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr Parameters kT5(2'851'000'000);  // t5-3b in DeepSpeed's documentation
constexpr Parameters kT5Layer(32'000'000);
constexpr DeepSpeedCluster kOneNode{.gpus_per_node = 8, .nodes = 1};

double gib(Bytes bytes) {
  return bytes.real() / kGiB;
}

// docs/source/memory.rst, one node of 8 GPUs: 127.45, 71.69 and 63.72 (printed as GB, really GiB).
//   2,851 M * max(4 * 8, 18) * 1.5 = 136.848e9 B; * 18 * 1.5 = 76.977e9 B; * 16 * 1.5 = 68.424e9 B
TEST(DeepSpeedEstimator, reproducesTheDocumentedAnswersForT5) {
  EXPECT_NEAR(gib(estimate_zero3(kT5, kT5Layer, kOneNode, {.zero_init = false}).cpu), 127.45,
              0.005);
  EXPECT_NEAR(gib(estimate_zero3(kT5, kT5Layer, kOneNode, {}).cpu), 71.69, 0.005);
  EXPECT_NEAR(gib(estimate_zero3(kT5, kT5Layer, kOneNode, {.parameters = false}).cpu), 63.72,
              0.005);
}

// 4 bytes of the largest layer; plus 2 P / 8 when parameters stay: 0.119 + 0.664 GiB.
TEST(DeepSpeedEstimator, countsTheGpuSide) {
  EXPECT_EQ(estimate_zero3(kT5, kT5Layer, kOneNode, {}).gpu, Bytes(128'000'000));
  EXPECT_EQ(estimate_zero3(kT5, kT5Layer, kOneNode, {.parameters = false}).gpu,
            Bytes(128'000'000 + 712'750'000));
  EXPECT_EQ(estimate_zero3(kT5, kT5Layer, kOneNode, {.optimizer = false}).gpu,
            Bytes(128'000'000 + 6'414'750'000));
  EXPECT_EQ(estimate_zero2(kT5, kOneNode, false).gpu, Bytes(5'702'000'000 + 6'414'750'000));
}

// 7, 13 and 70 billion parameters on one node of 8: 313, 581, 3129 GiB and 176, 327, 1760 GiB.
TEST(DeepSpeedEstimator, largerModels) {
  EXPECT_NEAR(gib(estimate_zero2(Parameters(7'000'000'000), kOneNode, true).cpu), 313, 0.5);
  EXPECT_NEAR(gib(estimate_zero2(Parameters(13'000'000'000), kOneNode, true).cpu), 581, 0.5);
  EXPECT_NEAR(gib(estimate_zero2(Parameters(70'000'000'000), kOneNode, true).cpu), 3129, 0.5);
  EXPECT_NEAR(gib(estimate_zero3(Parameters(7'000'000'000), kT5Layer, kOneNode, {}).cpu), 176, 0.5);
  EXPECT_NEAR(gib(estimate_zero3(Parameters(13'000'000'000), kT5Layer, kOneNode, {}).cpu), 327,
              0.5);
  EXPECT_NEAR(gib(estimate_zero3(Parameters(70'000'000'000), kT5Layer, kOneNode, {}).cpu), 1760,
              0.5);
}

// The oddity of the source: ZeRO-2 counts the GPUs of all nodes, ZeRO-3 divides by the nodes.
TEST(DeepSpeedEstimator, keepsTheSourcesOddityOnSeveralNodes) {
  const DeepSpeedCluster four{.gpus_per_node = 8, .nodes = 4};
  EXPECT_EQ(estimate_zero2(kT5, four, true).cpu, estimate_zero2(kT5, kOneNode, true).cpu * 4);
  EXPECT_NEAR(gib(estimate_zero3(kT5, kT5Layer, four, {}).cpu), 71.69 / 4, 0.005);
  EXPECT_EQ(estimate_zero2(kT5, four, false).cpu, estimate_zero2(kT5, kOneNode, false).cpu);
}

TEST(DeepSpeedEstimator, withoutOffloadOnlyInitialisationNeedsTheHost) {
  // 32 M * 4 * 8 * 1.5 and 2,851 M * 4 * 8 * 1.5
  EXPECT_EQ(estimate_zero3(kT5, kT5Layer, kOneNode, {.optimizer = false}).cpu,
            Bytes(1'536'000'000));
  EXPECT_EQ(estimate_zero3(kT5, kT5Layer, kOneNode, {.optimizer = false, .zero_init = false}).cpu,
            Bytes(136'848'000'000));
}

}  // namespace
}  // namespace steelyard::ram
