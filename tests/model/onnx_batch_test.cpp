// A batch that a file fixes: where it lies after views, beside other operands and in parts; graphs
// that keep it, and those that bake it in. What follows it through real files:
// step/onnx_saved_test.
#include "model/onnx_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/onnx.h"
#include "model/onnx_models.h"

namespace steelyard::model {
namespace {

using ::testing::HasSubstr;

constexpr BatchPlace kNone{};
constexpr BatchPlace kOwn{1, 1};

// --- Places ---

TEST(OnnxBatch, SizesFollowTheirPlaces) {
  EXPECT_EQ(with_batch({2, 3}, {}, 7), (Shape{2, 3}));
  EXPECT_EQ(with_batch({2, 3}, {kOwn, kNone}, 7), (Shape{7, 3}));
  EXPECT_EQ(with_batch({24, 5}, {{3, 4}, kNone}, 7), (Shape{84, 5}));  // 3 x batch x 4
}

std::optional<BatchPlaces> viewed(const Shape& from, const BatchPlaces& places, const Shape& to,
                                  std::int64_t batch) {
  return places_of_view(from, places, to, batch);
}

TEST(OnnxBatch, ViewsCarryIt) {
  // [B,S,E] as rows and back, as heads, as one row.
  EXPECT_EQ(viewed({2, 8, 6}, {kOwn, kNone, kNone}, {16, 6}, 2), (BatchPlaces{{1, 8}, kNone}));
  EXPECT_EQ(viewed({16, 6}, {{1, 8}, kNone}, {2, 8, 6}, 2), (BatchPlaces{kOwn, kNone, kNone}));
  EXPECT_EQ(viewed({2, 8, 6}, {kOwn, kNone, kNone}, {2, 8, 3, 2}, 2),
            (BatchPlaces{kOwn, kNone, kNone, kNone}));
  EXPECT_EQ(viewed({2, 8, 6}, {kOwn, kNone, kNone}, {96}, 2), (BatchPlaces{{1, 48}}));
  // Sequence first: the batch is inside.
  EXPECT_EQ(viewed({8, 2, 6}, {kNone, kOwn, kNone}, {16, 6}, 2), (BatchPlaces{{8, 1}, kNone}));
  EXPECT_EQ(viewed({8, 2, 6}, {kNone, kOwn, kNone}, {8, 6, 2}, 2),
            (BatchPlaces{kNone, {1, 3}, kNone}));
  EXPECT_EQ(viewed({8, 6}, {}, {6, 8}, 2), BatchPlaces());
}

TEST(OnnxBatch, ViewsThatCutItApartAreRefused) {
  EXPECT_FALSE(viewed({4, 3}, {kOwn, kNone}, {2, 6}, 4));  // 2 samples side by side
  EXPECT_FALSE(viewed({3, 4}, {kNone, kOwn}, {2, 6}, 4));
}

// With a batch of 1 every size is a multiple of it: what is most usual is taken.
TEST(OnnxBatch, OfOneIsWhereItUsuallyIs) {
  EXPECT_EQ(viewed({1, 8, 6}, {kOwn, kNone, kNone}, {8, 6}, 1), (BatchPlaces{{1, 8}, kNone}));
  EXPECT_EQ(viewed({1, 8, 6}, {kOwn, kNone, kNone}, {1, 8, 3, 2}, 1),
            (BatchPlaces{kOwn, kNone, kNone, kNone}));
  EXPECT_EQ(viewed({8, 6}, {{1, 8}, kNone}, {1, 8, 6}, 1), (BatchPlaces{kOwn, kNone, kNone}));
  // [B,H,S,D] -> [B*H,S,D], the operands of a batched product.
  EXPECT_EQ(viewed({1, 3, 8, 2}, {kOwn, kNone, kNone, kNone}, {3, 8, 2}, 1),
            (BatchPlaces{{1, 3}, kNone, kNone}));
  // [S,B,E] -> [S,B*H,D], as torch.nn.MultiheadAttention has it, and back.
  EXPECT_EQ(viewed({8, 1, 6}, {kNone, kOwn, kNone}, {8, 3, 2}, 1),
            (BatchPlaces{kNone, {1, 3}, kNone}));
  EXPECT_EQ(viewed({8, 3, 2}, {kNone, {1, 3}, kNone}, {8, 1, 6}, 1),
            (BatchPlaces{kNone, kOwn, kNone}));
  // [S,B,E] -> rows for a linear: features are last and hold no batch.
  EXPECT_EQ(viewed({8, 1, 6}, {kNone, kOwn, kNone}, {8, 6}, 1), (BatchPlaces{{8, 1}, kNone}));
  EXPECT_EQ(viewed({8, 6}, {{8, 1}, kNone}, {8, 1, 6}, 1), (BatchPlaces{kNone, kOwn, kNone}));
}

TEST(OnnxBatch, OperandsOfOneSizeAreAligned) {
  BatchPlaces into;
  add_aligned(into, {2, 3, 4}, {3, 4}, {kNone, kNone});
  add_aligned(into, {2, 3, 4}, {2, 1, 4}, {kOwn, kNone, kNone});
  EXPECT_EQ(into, (BatchPlaces{kOwn, kNone, kNone}));
  into.clear();
  add_aligned(into, {6, 2, 4}, {1, 4}, {kOwn, kNone});  // repeated: the other says what it is
  EXPECT_EQ(into, (BatchPlaces{kNone, kNone, kNone}));
}

TEST(OnnxBatch, PartsAreOfWholeSamples) {
  EXPECT_EQ(place_of_part({3, 1}, 0, 4, 4), (BatchPlace{1, 1}));  // one of three
  EXPECT_EQ(place_of_part({3, 2}, 8, 16, 4), (BatchPlace{2, 2}));
  EXPECT_FALSE(place_of_part({1, 1}, 0, 1, 4));
  EXPECT_FALSE(place_of_part({3, 1}, 2, 4, 4));
}

// --- Graphs ---

Result<Graph> moved(const OnnxModel& model, std::int64_t batch) {
  return build_onnx(model, "test", {batch, 0, 0, 0});
}

std::string refusal_of(const OnnxModel& model, std::int64_t batch) {
  const auto graph = moved(model, batch);
  return graph ? "accepted" : to_text(graph.error());
}

// x [b,8,6] -> rows -> linear [6,4] -> [b,8,4], with the batch written down in the shapes.
OnnxModel rows_model(std::int64_t b) {
  OnnxModel model;
  model.operator_sets = {{"", 17}};
  model.graph.inputs = {input("x", {b, 8, 6})};
  model.graph.initializers = {floats("w", {6, 4}), wholes("rows", {b * 8, 6}),
                              wholes("back", {b, 8, 4})};
  model.graph.nodes = {node("Reshape", {"x", "rows"}, {"r"}), node("MatMul", {"r", "w"}, {"m"}),
                       node("Reshape", {"m", "back"}, {"y"})};
  model.graph.outputs = {input("y", {b, 8, 4})};
  return model;
}

TEST(OnnxBatch, GraphsAreMovedFromAnyBatch) {
  for (const std::int64_t from : {1, 2, 8}) {
    for (const std::int64_t to : {1, 2, 5, 8, 64}) {
      const auto graph = moved(rows_model(from), to);
      ASSERT_TRUE(graph) << from << " " << to << ": " << to_text(graph.error());
      EXPECT_EQ(forward_flops(*graph).value(), 2.0 * static_cast<double>(to) * 8 * 6 * 4);
      EXPECT_EQ(graph->batch_tensors.front().shape, (Shape{to, 8, 6}));
      EXPECT_EQ(graph->batch_tensors.back().shape, (Shape{8 * to}));  // labels of the rows
    }
  }
}

// Sequence first: [b,8,6] -> [8,b,6] -> [8*b,6] -> linear.
TEST(OnnxBatch, SequenceFirstIsMovedFromOne) {
  OnnxModel model = rows_model(1);
  OnnxNode turn = node("Transpose", {"x"}, {"t"});
  turn.attributes.resize(1);
  turn.attributes[0].name = "perm";
  turn.attributes[0].wholes = {1, 0, 2};
  model.graph.nodes.insert(model.graph.nodes.begin(), turn);
  model.graph.nodes[1].inputs[0] = "t";
  model.graph.initializers[2] = wholes("back", {8, 1, 4});
  const auto graph = moved(model, 3);
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(forward_flops(*graph).value(), 2.0 * 3 * 8 * 6 * 4);
}

TEST(OnnxBatch, WhatIsBakedInIsRefusedByName) {
  OnnxModel model = rows_model(4);
  model.graph.initializers[1] = wholes("rows", {2, 96});  // two samples in a row
  model.graph.initializers[0] = floats("w", {96, 4});
  model.graph.initializers[2] = wholes("back", {2, 4});
  EXPECT_EQ(refusal_of(model, 4), "accepted");
  const std::string said = refusal_of(model, 8);
  EXPECT_THAT(said, HasSubstr("Reshape"));
  EXPECT_THAT(said, HasSubstr("train.micro_batch = 8, where input x fixes a batch of 4"));
  EXPECT_THAT(said, HasSubstr("dynamic_axes"));
}

TEST(OnnxBatch, SamplesChosenByNumberAreRefused) {
  OnnxModel model = rows_model(4);
  OnnxNode gather = node("Gather", {"y", "first"}, {"z"});
  model.graph.initializers.push_back(wholes("first", {0}));
  model.graph.nodes.push_back(gather);
  model.graph.outputs = {input("z", {1, 8, 4})};
  EXPECT_EQ(refusal_of(model, 4), "accepted");
  EXPECT_THAT(refusal_of(model, 8), HasSubstr("where input x fixes a batch of 4"));
}

// Another input may have a first dimension of its own; the first input's is the batch.
TEST(OnnxBatch, OnlyInputsOfTheSameSizeFollow) {
  OnnxModel model = rows_model(2);
  model.graph.inputs.push_back(input("table", {5, 4}));
  model.graph.initializers.push_back(floats("v", {4, 4}));
  model.graph.nodes.push_back(node("MatMul", {"table", "v"}, {"t"}));
  model.graph.outputs.push_back(input("t", {5, 4}));
  const auto graph = moved(model, 6);
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(graph->batch_tensors.at(1).shape, (Shape{5, 4}));
  EXPECT_EQ(forward_flops(*graph).value(), 2.0 * (6 * 8 * 6 * 4 + 5 * 4 * 4));
}

}  // namespace
}  // namespace steelyard::model
