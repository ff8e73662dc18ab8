// Real exports against what onnx and torch say of them, and graphs that nobody should accept.
#include "model/onnx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "codec/onnx.h"
#include "codec/temporary_folder.h"
#include "model/onnx_exports.h"
#include "model/onnx_models.h"

namespace steelyard::model {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const OnnxModel> model_of(const OnnxExport& exported) {
  const TemporaryFolder folder;
  const auto model = codec::read_onnx(folder.write("model.onnx", exported.bytes));
  EXPECT_TRUE(model) << exported.name << ": " << (model ? "" : to_text(model.error()));
  return model.value_or(nullptr);
}

std::string text_of_shape(const Shape& shape) {
  std::string text;
  for (const std::int64_t size : shape) text += (text.empty() ? "" : ",") + std::to_string(size);
  return text;
}

class OnnxExports : public ::testing::TestWithParam<std::filesystem::path> {};

// Every value that onnx.shape_inference gives a shape has the same one here; parameters are those
// that torch counts.
TEST_P(OnnxExports, AgreesWithShapeInferenceAndTorch) {
  const OnnxExport exported = read_export(GetParam());
  const auto model = model_of(exported);
  ASSERT_TRUE(model);
  OnnxShapes shapes;
  const auto graph =
      build_onnx(*model, exported.name, {exported.batch, exported.sequence, 0, 0}, &shapes);
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(parameter_count(*graph).value(), exported.parameters);
  EXPECT_GT(forward_flops(*graph).value(), 0.0);
  std::int64_t compared = 0;
  for (const auto& [value, expected] : *exported.shapes.as_object()) {
    const auto found = shapes.by_value.find(value);
    if (found == shapes.by_value.end()) continue;  // fused into another operator
    EXPECT_EQ(text_of_shape(found->second), *expected.as_text()) << value;
    ++compared;
  }
  EXPECT_GT(compared, 4);
}

// Another batch than the exported one: every operator's result follows it.
TEST_P(OnnxExports, FollowsTheBatch) {
  const OnnxExport exported = read_export(GetParam());
  const auto model = model_of(exported);
  ASSERT_TRUE(model);
  if (!exported.moves) {
    const auto other = build_onnx(*model, exported.name, {2 * exported.batch, 0, 0, 0});
    ASSERT_FALSE(other);
    EXPECT_THAT(to_text(other.error()), HasSubstr("fixes a batch of"));
    return;
  }
  const auto once = build_onnx(*model, exported.name, {2, exported.sequence, 0, 0});
  const auto twice = build_onnx(*model, exported.name, {4, exported.sequence, 0, 0});
  ASSERT_TRUE(once && twice) << (twice ? "" : to_text(twice.error()));
  if (!exported.couples) {
    EXPECT_NEAR(forward_flops(*twice).value() / forward_flops(*once).value(), 2.0, 1e-9);
  }
  EXPECT_EQ(parameter_count(*twice).value(), parameter_count(*once).value());
}

INSTANTIATE_TEST_SUITE_P(Files, OnnxExports, ::testing::ValuesIn(onnx_exports()),
                         [](const auto& file) { return file.param.stem().string(); });

// --- Graphs by hand ---

OnnxModel small_model() {
  OnnxModel model;
  model.operator_sets = {{"", 17}};
  model.graph.inputs = {input("x", {2, 3})};
  model.graph.initializers = {floats("w", {3, 4})};
  model.graph.nodes = {node("MatMul", {"x", "w"}, {"y"})};
  model.graph.outputs = {input("y", {2, 4})};
  return model;
}

std::string refusal(const OnnxModel& model) {
  const auto graph = build_onnx(model, "test", {2, 0, 0, 0});
  return graph ? "accepted" : to_text(graph.error());
}

TEST(Onnx, SmallProductIsALinear) {
  const auto graph = build_onnx(small_model(), "test", {5, 0, 0, 0});
  ASSERT_TRUE(graph) << to_text(graph.error());
  const Block& block = graph->segments.at(0).blocks.at(0);
  EXPECT_EQ(block.operators.front().kind, OperatorKind::linear);
  EXPECT_EQ(parameter_count(*graph).value(), 12);
  EXPECT_EQ(forward_flops(*graph).value(), 2.0 * 5 * 3 * 4);  // the batch is the job's
  EXPECT_EQ(block.operators.back().kind, OperatorKind::outputs_loss);
}

TEST(Onnx, HasAtLeastEightyOperators) {
  EXPECT_GE(known_onnx_operators().size(), 80u);
}

TEST(Onnx, CycleIsRefused) {
  OnnxModel model = small_model();
  model.graph.nodes = {node("Add", {"x", "b"}, {"a"}), node("Relu", {"a"}, {"b"})};
  EXPECT_THAT(refusal(model), HasSubstr("circle"));
}

TEST(Onnx, UnsortedNodesAreSorted) {
  OnnxModel model = small_model();
  model.graph.nodes = {node("Relu", {"h"}, {"y"}), node("MatMul", {"x", "w"}, {"h"})};
  EXPECT_EQ(refusal(model), "accepted");
}

TEST(Onnx, NamesUsedTwiceAreRefused) {
  OnnxModel model = small_model();
  model.graph.nodes.push_back(node("Relu", {"y"}, {"y"}));
  EXPECT_THAT(refusal(model), HasSubstr("another node makes"));
  model = small_model();
  model.graph.initializers.push_back(floats("w", {1}));
  EXPECT_THAT(refusal(model), HasSubstr("initializer w"));
  model = small_model();
  model.graph.nodes.push_back(node("Relu", {"x"}, {"w"}));
  EXPECT_THAT(refusal(model), HasSubstr("something else bears"));
}

TEST(Onnx, UnknownNamesAreRefused) {
  OnnxModel model = small_model();
  model.graph.nodes[0].inputs[1] = "nowhere";
  EXPECT_THAT(refusal(model), HasSubstr("\"nowhere\", which nothing makes"));
  model = small_model();
  model.graph.nodes[0].op_type = "MatMull";
  EXPECT_THAT(refusal(model), HasSubstr("did you mean MatMul?"));
  model = small_model();
  model.graph.nodes[0].domain = "com.example";
  EXPECT_THAT(refusal(model), HasSubstr("com.example.MatMul"));
}

TEST(Onnx, HugeShapesAreRefused) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  OnnxModel model = small_model();
  model.graph.inputs = {input("x", {2, kHuge, 3})};
  EXPECT_THAT(refusal(model), HasSubstr("64 bits"));
  model = small_model();
  model.graph.initializers.push_back(wholes("s", {kHuge, kHuge}));
  model.graph.nodes.push_back(node("Expand", {"x", "s"}, {"z"}));
  EXPECT_NE(refusal(model), "accepted");
  model.graph.nodes.back() = node("ConstantOfShape", {"s"}, {"z"});
  EXPECT_THAT(refusal(model), HasSubstr("64 bits"));
  model.graph.nodes.back() = node("Mul", {"s", "s"}, {"z"});
  EXPECT_THAT(refusal(model), HasSubstr("64 bits"));
}

TEST(Onnx, ShapesThatDoNotMeetAreRefused) {
  OnnxModel model = small_model();
  model.graph.initializers[0].dims = {5, 4};
  EXPECT_THAT(refusal(model), HasSubstr("inputs [2,3] and [5,4]"));
  model = small_model();
  model.graph.nodes.push_back(node("Add", {"x", "y"}, {"z"}));
  EXPECT_THAT(refusal(model), HasSubstr("do not meet"));
  model = small_model();
  model.graph.initializers.push_back(wholes("s", {7, -1}));
  model.graph.nodes.push_back(node("Reshape", {"x", "s"}, {"z"}));
  EXPECT_THAT(refusal(model), HasSubstr("the target [7,-1]"));
}

TEST(Onnx, ShapesThatDependOnDataAreRefused) {
  OnnxModel model = small_model();
  model.graph.initializers.push_back(floats("v", {4, 4}));
  model.graph.nodes.push_back(node("NonZero", {"y"}, {"z"}));
  model.graph.nodes.push_back(node("GatherND", {"y", "z"}, {"part"}));
  EXPECT_EQ(refusal(model), "accepted");  // the end of a detector: cut away
  model.graph.nodes.push_back(node("MatMul", {"part", "v"}, {"u"}));
  EXPECT_THAT(refusal(model), HasSubstr("behind NonZero_1 (NonZero), whose result's size depends"));
  model = small_model();
  model.graph.nodes.push_back(node("Reshape", {"y", "x"}, {"z"}));
  EXPECT_THAT(refusal(model), HasSubstr("depend on data"));
}

TEST(Onnx, MissingInputsAreRefused) {
  OnnxModel model = small_model();
  model.graph.nodes[0].inputs = {"x"};
  EXPECT_THAT(refusal(model), HasSubstr("at least 2 inputs"));
  for (const std::string& name : known_onnx_operators()) {
    OnnxModel bare = small_model();
    bare.graph.nodes.push_back(node(name, {}, {"z"}));
    (void)refusal(bare);  // says something, and does not crash
    bare.graph.nodes.back().inputs = {"x", "x", "x", "x"};
    (void)refusal(bare);
    bare.graph.nodes.back().inputs = {"w", "w"};
    (void)refusal(bare);
    bare.graph.initializers.push_back(wholes("n", {-1, 0, 9}));
    bare.graph.nodes.back().inputs = {"x", "n", "n", "n"};
    (void)refusal(bare);
    bare.graph.nodes.back().inputs = {"n", "n", "n"};
    (void)refusal(bare);
  }
}

TEST(Onnx, FunctionsAreWrittenOut) {
  OnnxModel model = small_model();
  facts::OnnxFunction twice;
  twice.name = "Twice";
  twice.domain = "custom";
  twice.inputs = {"a"};
  twice.outputs = {"c"};
  twice.nodes = {node("Relu", {"a"}, {"b"}), node("Sigmoid", {"b"}, {"c"})};
  model.functions = {twice};
  model.graph.nodes.push_back(node("Twice", {"y"}, {"z"}));
  model.graph.nodes.back().domain = "custom";
  model.graph.outputs = {input("z", {2, 4})};
  EXPECT_EQ(refusal(model), "accepted");
  model.functions[0].nodes[0] = node("Twice", {"a"}, {"b"});
  model.functions[0].nodes[0].domain = "custom";
  EXPECT_THAT(refusal(model), HasSubstr("call themselves"));
}

TEST(Onnx, FrozenOutputsAreRefused) {
  OnnxModel model = small_model();
  model.graph.nodes = {node("Shape", {"x"}, {"y"})};
  EXPECT_THAT(refusal(model), HasSubstr("no output of real numbers"));
}

TEST(Onnx, OldOperatorSetsAreRefused) {
  OnnxModel model = small_model();
  model.operator_sets = {{"", 6}};
  EXPECT_THAT(refusal(model), HasSubstr("operator set 7 or newer"));
}

}  // namespace
}  // namespace steelyard::model
