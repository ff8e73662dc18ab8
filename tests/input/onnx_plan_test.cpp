// Every recorded ONNX export (tests/model/onnx) is planned by the program as a file that a user
// has, without a word on standard error.
#include <gtest/gtest.h>

#include "codec/codec.h"
#include "input/run_program.h"
#include "model/onnx_exports.h"

namespace steelyard {
namespace {

class OnnxPlans : public ::testing::TestWithParam<std::filesystem::path> {};

// At the exported batch, and where the batch is open or can be moved at another one.
TEST_P(OnnxPlans, AreMadeOfTheFileAlone) {
  const model::OnnxExport exported = model::read_export(GetParam());
  const TemporaryFolder folder;
  const auto file = folder.write(exported.name + ".onnx", exported.bytes);
  std::int64_t last = 0;
  std::vector<std::int64_t> batches = {exported.batch};
  if (exported.moves) batches.push_back(7 * exported.batch);
  for (const std::int64_t batch : batches) {
    std::vector<std::string> arguments = {
        "plan",   "--model", file.string(), "--gpu", "h100-sxm-80gb",
        "--gpus", "1",       "--json",      "--set", "train.micro_batch=" + std::to_string(batch)};
    if (exported.sequence > 1000) {  // samples of a sound
      arguments.insert(arguments.end(),
                       {"--set", "train.sequence_length=" + std::to_string(exported.sequence)});
    }
    const auto ran = testing::run_steelyard(arguments);
    ASSERT_TRUE(ran.status == 0 || ran.status == 3) << ran.messages;
    EXPECT_EQ(ran.messages, "");
    const auto plan = codec::parse(ran.output, codec::Format::json, "plan");
    ASSERT_TRUE(plan) << to_text(plan.error());
    EXPECT_EQ(*plan->find("model")->find("parameters")->as_whole(), exported.parameters);
    const std::int64_t bytes = *plan->find("vram")->find("peak_allocated")->as_whole();
    EXPECT_GT(bytes, last);
    last = bytes;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, OnnxPlans, ::testing::ValuesIn(model::onnx_exports()),
                         [](const auto& file) { return file.param.stem().string(); });

TEST(OnnxPlans, AreOfManyKinds) {
  EXPECT_GE(model::onnx_exports().size(), 70u);
}

}  // namespace
}  // namespace steelyard
