// Where an ONNX graph is cut, which of its tensors are weights, and what becomes the loss.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/onnx.h"
#include "model/onnx_models.h"

namespace steelyard::model {
namespace {

using ::testing::HasSubstr;

// x [2,3] -> w [3,4] -> y [2,4].
OnnxModel one_linear() {
  OnnxModel model;
  model.operator_sets = {{"", 17}};
  model.graph.inputs = {input("x", {2, 3})};
  model.graph.initializers = {floats("w", {3, 4})};
  model.graph.nodes = {node("MatMul", {"x", "w"}, {"y"})};
  model.graph.outputs = {input("y", {2, 4})};
  return model;
}

Graph built(const OnnxModel& model, std::int64_t batch = 2) {
  const auto graph = build_onnx(model, "test", {batch, 0, 0, 0});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph ? *graph : Graph();
}

std::string refusal(const OnnxModel& model) {
  const auto graph = build_onnx(model, "test", {2, 0, 0, 0});
  return graph ? "accepted" : to_text(graph.error());
}

const Operator& loss_of(const Graph& graph) {
  return graph.segments.back().blocks.back().operators.back();
}

OnnxNode with_whole(OnnxNode made, const std::string& name, std::int64_t value) {
  made.attributes.emplace_back();
  made.attributes.back().name = name;
  made.attributes.back().whole = value;
  return made;
}

// --- Sizes that nobody states ---

// x [b,t] of real numbers through a gate with itself.
OnnxModel open_inputs(const Shape& fixed) {
  OnnxModel model;
  model.operator_sets = {{"", 17}};
  model.graph.inputs = {input("x", fixed)};
  model.graph.inputs.front().dims.front() = {{}, "b"};
  model.graph.inputs.front().dims.back() = {{}, "t"};
  const std::int64_t channels = fixed.size() == 3 ? fixed[1] : 1;
  model.graph.initializers = {floats("w", {channels, 1})};
  model.graph.nodes = {node("Mul", {"x", "w"}, {"y"})};
  model.graph.outputs = {model.graph.inputs.front()};
  model.graph.outputs.front().name = "y";
  return model;
}

TEST(OnnxSizes, AnOpenSoundIsASecondAndSaysSo) {
  const OnnxModel sound = open_inputs({1, 1});
  const Graph graph = built(sound);
  EXPECT_EQ(graph.audio_samples, 16'000);
  EXPECT_EQ(graph.shared.front().shape, (Shape{2, 16'000}));
  // As `plan` asks again with what the first graph said.
  const auto again = build_onnx(sound, "test", {.batch = 2, .audio_seconds = 1.0});
  ASSERT_TRUE(again);
  EXPECT_EQ(again->shared.front().shape, (Shape{2, 16'000}));
  const auto longer = build_onnx(sound, "test", {.batch = 2, .audio_seconds = 2.0});
  ASSERT_TRUE(longer);
  EXPECT_EQ(longer->shared.front().shape, (Shape{2, 32'000}));
}

TEST(OnnxSizes, AnOpenLengthOfChannelsIsTheSamplesLength) {
  const OnnxModel model = open_inputs({1, 4, 1});
  const Graph graph = built(model);
  EXPECT_EQ(graph.sequence, 128);
  const auto again = build_onnx(model, "test", {.batch = 2, .sequence = graph.sequence});
  ASSERT_TRUE(again);
  EXPECT_EQ(again->shared.front().shape, (Shape{2, 4, 128}));
}

// --- Cut ---

TEST(OnnxCut, WhatIsReadBehindNonMaxSuppressionIsPutOut) {
  OnnxModel model = one_linear();
  model.graph.initializers.push_back(wholes("most", {5}));
  model.graph.nodes.push_back(node("NonMaxSuppression", {"y", "y", "most"}, {"chosen"}));
  model.graph.nodes.push_back(node("GatherND", {"y", "chosen"}, {"best"}));
  model.graph.outputs = {input("best", {1, 4})};
  const Graph graph = built(model);
  EXPECT_EQ(loss_of(graph).kind, OperatorKind::outputs_loss);
  EXPECT_EQ(forward_flops(graph).value(), 2.0 * 2 * 3 * 4);
}

TEST(OnnxCut, BranchesOnDataAreCut) {
  OnnxModel model = one_linear();
  const auto inner = std::make_shared<facts::OnnxGraph>();
  inner->nodes = {node("Relu", {"y"}, {"r"})};
  inner->outputs = {input("r", {2, 4})};
  OnnxNode branch = node("If", {"asked"}, {"z"});
  branch.attributes.resize(2);
  branch.attributes[0].name = "then_branch";
  branch.attributes[1].name = "else_branch";
  branch.attributes[0].graph = branch.attributes[1].graph = inner;
  model.graph.nodes.push_back(node("ReduceMax", {"y"}, {"top"}));
  model.graph.nodes.push_back(node("Greater", {"top", "top"}, {"asked"}));
  model.graph.nodes.push_back(branch);
  model.graph.outputs = {input("z", {2, 4})};
  EXPECT_EQ(loss_of(built(model)).kind, OperatorKind::outputs_loss);
  inner->initializers = {floats("v", {4, 4})};
  inner->nodes = {node("MatMul", {"y", "v"}, {"r"})};
  EXPECT_EQ(refusal(model), "accepted");  // the branch's own weights are not looked at
  inner->initializers.clear();
  model.graph.initializers.push_back(floats("v", {4, 4}));
  EXPECT_THAT(refusal(model), HasSubstr("a weight that is read behind If_1 (If)"));
}

TEST(OnnxCut, VectorsBehindTheCutAreNoWeights) {
  OnnxModel model = one_linear();
  model.graph.initializers.push_back(floats("scale", {4}));
  model.graph.nodes.push_back(node("NonZero", {"y"}, {"at"}));
  model.graph.nodes.push_back(node("GatherND", {"y", "at"}, {"part"}));
  model.graph.nodes.push_back(node("Mul", {"part", "scale"}, {"scaled"}));
  EXPECT_EQ(parameter_count(built(model)).value(), 12);
}

// --- Weights ---

TEST(OnnxWeights, OfOneDiagonalAreOne) {
  OnnxModel model = one_linear();
  model.graph.initializers = {floats("words", {50, 3}), floats("head", {3, 50})};
  model.graph.initializers[0].diagonal = model.graph.initializers[1].diagonal = {1, 2, 3};
  OnnxValueInfo ids = input("x", {2, 7});
  ids.element = 7;
  model.graph.inputs = {ids};
  model.graph.nodes = {node("Gather", {"words", "x"}, {"h"}), node("MatMul", {"h", "head"}, {"y"})};
  EXPECT_EQ(parameter_count(built(model)).value(), 150);
  model.graph.initializers[1].diagonal = {1, 2, 4};
  EXPECT_EQ(parameter_count(built(model)).value(), 300);
  model.graph.initializers[1].diagonal = {};
  EXPECT_EQ(parameter_count(built(model)).value(), 300);
}

TEST(OnnxWeights, ReadTwiceAreOne) {
  OnnxModel model = one_linear();
  model.graph.nodes = {node("MatMul", {"x", "w"}, {"a"}), node("MatMul", {"x", "w"}, {"b"}),
                       node("Add", {"a", "b"}, {"y"})};
  EXPECT_EQ(parameter_count(built(model)).value(), 12);
}

TEST(OnnxWeights, UnreadInitializersAreNone) {
  OnnxModel model = one_linear();
  model.graph.initializers.push_back(floats("unread", {100, 100}));
  EXPECT_EQ(parameter_count(built(model)).value(), 12);
}

// A convolution's weight that nodes make (weight norm) stands in a weight's place.
TEST(OnnxWeights, VectorsBesideTensorsTrain) {
  OnnxModel model = one_linear();
  model.graph.initializers.push_back(floats("scale", {4}));
  model.graph.nodes.push_back(node("Mul", {"y", "scale"}, {"z"}));
  model.graph.outputs = {input("z", {2, 4})};
  EXPECT_EQ(parameter_count(built(model)).value(), 16);
}

// --- The end ---

TEST(OnnxEnd, RowsOfClassesGetCrossEntropy) {
  const Graph graph = built(one_linear());
  EXPECT_EQ(loss_of(graph).groups, 2);
  EXPECT_EQ(graph.batch_tensors.back().name, "labels");
  EXPECT_EQ(graph.batch_tensors.back().shape, (Shape{2}));
}

TEST(OnnxEnd, OtherOutputsAreSummed) {
  OnnxModel model = one_linear();
  model.graph.initializers[0] = floats("w", {3, 1});
  model.graph.outputs = {input("y", {2, 1})};
  const Graph graph = built(model);
  EXPECT_EQ(loss_of(graph).groups, 1);
  EXPECT_EQ(graph.batch_tensors.size(), 1u);  // no labels
  model = one_linear();
  model.graph.nodes.push_back(node("Relu", {"y"}, {"z"}));
  model.graph.outputs.push_back(input("z", {2, 4}));
  EXPECT_EQ(loss_of(built(model)).inputs.size(), 3u);  // both, and labels
}

TEST(OnnxEnd, OutputsWithoutGradientAreLeftOut) {
  OnnxModel model = one_linear();
  model.graph.nodes.push_back(with_whole(node("ArgMax", {"y"}, {"best"}), "axis", 1));
  model.graph.outputs.insert(model.graph.outputs.begin(), input("best", {2, 1}));
  EXPECT_EQ(loss_of(built(model)).inputs.size(), 2u);  // y and labels
  model.graph.outputs.pop_back();
  EXPECT_THAT(refusal(model), HasSubstr("no output of real numbers that depends on a weight"));
}

TEST(OnnxEnd, OutputsThatNothingMakesAreRefused) {
  OnnxModel model = one_linear();
  model.graph.outputs = {input("nowhere", {2, 4})};
  EXPECT_THAT(refusal(model), HasSubstr("output nowhere: found a name that nothing makes"));
}

}  // namespace
}  // namespace steelyard::model
