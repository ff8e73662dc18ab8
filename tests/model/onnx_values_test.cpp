// Values of ONNX graphs that are no plain tensors of the data: weights that nodes compute, numbers
// that a file quantized, lists, and values that may be missing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/onnx.h"
#include "model/onnx_models.h"

namespace steelyard::model {
namespace {

using ::testing::HasSubstr;

// x [2,4,9] and whatever weights the nodes need, to y.
OnnxModel model_of(std::vector<OnnxTensor> stored, std::vector<OnnxNode> nodes,
                   const Shape& x = {2, 4, 9}) {
  OnnxModel model;
  model.operator_sets = {{"", 17}};
  model.graph.inputs = {input("x", x)};
  model.graph.initializers = std::move(stored);
  model.graph.nodes = std::move(nodes);
  model.graph.outputs = {input("y", {2, 1})};
  return model;
}

Graph built(const OnnxModel& model) {
  const auto graph = build_onnx(model, "test", {2, 0, 0, 0});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph ? *graph : Graph();
}

std::string refusal(const OnnxModel& model) {
  const auto graph = build_onnx(model, "test", {2, 0, 0, 0});
  return graph ? "accepted" : to_text(graph.error());
}

OnnxTensor number(const std::string& name, double value) {
  OnnxTensor tensor = floats(name, {});
  tensor.reals = {value};
  return tensor;
}

// 8 channels of 4 and a window of 3, 7 places in each of 2 samples.
constexpr double kConvolution = 2.0 * 2 * 8 * 7 * 4 * 3;

TEST(OnnxWeights, OfAConvolutionMayBeComputed) {
  const Graph graph =
      built(model_of({floats("v", {8, 4, 3}), floats("g", {8, 1, 1}), floats("b", {8})},
                     {node("ReduceL2", {"v"}, {"n"}), node("Div", {"v", "n"}, {"u"}),
                      node("Mul", {"u", "g"}, {"w"}), node("Conv", {"x", "w", "b"}, {"y"})}));
  EXPECT_EQ(parameter_count(graph).value(), 8 * 4 * 3 + 8 + 8);
  EXPECT_EQ(forward_flops(graph).value(), kConvolution);
}

TEST(OnnxWeights, OfAConvolutionHaveToFit) {
  EXPECT_THAT(refusal(model_of({floats("v", {8, 5, 3}), floats("g", {8, 1, 1})},
                               {node("Mul", {"v", "g"}, {"w"}), node("Conv", {"x", "w"}, {"y"})})),
              HasSubstr("a weight that does not fit 1 groups"));
}

// A standardized weight: its norm has a scale that trains, or ones and zeros that do not.
TEST(OnnxWeights, MayBeStandardized) {
  const std::vector<OnnxNode> behind = {
      node("Reshape", {"v", "rows"}, {"r"}),
      node("BatchNormalization", {"r", "scale", "zeros", "zeros", "zeros"}, {"c"}),
      node("Reshape", {"c", "window"}, {"w"}), node("Conv", {"x", "w"}, {"y"})};
  OnnxTensor zeros = floats("zeros", {8});
  const auto stored = [&] {
    return std::vector<OnnxTensor>{floats("v", {8, 4, 3}), zeros, wholes("rows", {1, 8, 12}),
                                   wholes("window", {8, 4, 3})};
  };
  OnnxModel gained = model_of(stored(), behind);
  gained.graph.buffers = {"zeros"};
  gained.graph.initializers.push_back(floats("scale", {8}));
  EXPECT_EQ(parameter_count(built(gained)).value(), 8 * 4 * 3 + 8);
  OnnxModel plain = gained;
  plain.graph.buffers = {"zeros", "scale"};
  EXPECT_EQ(parameter_count(built(plain)).value(), 8 * 4 * 3);
  EXPECT_EQ(forward_flops(built(plain)).value(), kConvolution);
}

TEST(OnnxWeights, TimesANumberStayWeights) {
  for (const char* type : {"Mul", "Div"}) {
    const Graph graph =
        built(model_of({floats("v", {9, 5}), number("half", 0.5)},
                       {node(type, {"v", "half"}, {"w"}), node("MatMul", {"x", "w"}, {"y"})}));
    EXPECT_EQ(parameter_count(graph).value(), 45) << type;
    EXPECT_EQ(forward_flops(graph).value(), 2.0 * 8 * 9 * 5) << type;
  }
}

TEST(OnnxWeights, OfABatchNormTrainWithoutAnotherWeight) {
  const Graph graph =
      built(model_of({floats("g", {4}), floats("b", {4}), floats("m", {4}), floats("s", {4})},
                     {node("BatchNormalization", {"x", "g", "b", "m", "s"}, {"y"})}));
  EXPECT_EQ(parameter_count(graph).value(), 8);
}

OnnxTensor bytes(const std::string& name, Shape dims) {
  OnnxTensor tensor = floats(name, std::move(dims));
  tensor.element = 3;  // int8
  return tensor;
}

TEST(OnnxQuantized, StoredNumbersStandForRealOnes) {
  const Graph graph = built(
      model_of({bytes("q", {9, 5}), number("s", 0.1)},
               {node("DequantizeLinear", {"q", "s"}, {"w"}), node("MatMul", {"x", "w"}, {"y"})}));
  EXPECT_EQ(parameter_count(graph).value(), 45);
  EXPECT_EQ(forward_flops(graph).value(), 2.0 * 8 * 9 * 5);
}

TEST(OnnxQuantized, PairsOnTheWayPassAGradient) {
  const Graph graph = built(model_of(
      {floats("v", {9, 5}), floats("v2", {5, 6}), number("s", 0.1)},
      {node("QuantizeLinear", {"v", "s"}, {"vq"}), node("DequantizeLinear", {"vq", "s"}, {"w"}),
       node("MatMul", {"x", "w"}, {"h"}), node("QuantizeLinear", {"h", "s"}, {"hq"}),
       node("DequantizeLinear", {"hq", "s"}, {"hd"}), node("MatMul", {"hd", "v2"}, {"y"})}));
  EXPECT_EQ(parameter_count(graph).value(), 45 + 30);
}

OnnxNode with_whole(OnnxNode made, const std::string& name, std::int64_t value) {
  made.attributes.emplace_back();
  made.attributes.back().name = name;
  made.attributes.back().whole = value;
  return made;
}

// Two of x [2,4,9] joined are [2,4,18], stacked [2,2,4,9].
TEST(OnnxSequences, AreJoined) {
  const OnnxNode pair = node("SequenceConstruct", {"x", "x"}, {"s"});
  const Graph joined =
      built(model_of({floats("w", {18, 5})},
                     {pair, with_whole(node("ConcatFromSequence", {"s"}, {"c"}), "axis", -1),
                      node("MatMul", {"c", "w"}, {"y"})}));
  EXPECT_EQ(forward_flops(joined).value(), 2.0 * 8 * 18 * 5);
  OnnxNode stack = with_whole(node("ConcatFromSequence", {"s"}, {"c"}), "axis", 1);
  const Graph stacked =
      built(model_of({floats("w", {9, 5})}, {pair, with_whole(std::move(stack), "new_axis", 1),
                                             node("MatMul", {"c", "w"}, {"y"})}));
  EXPECT_EQ(forward_flops(stacked).value(), 2.0 * 16 * 9 * 5);
}

TEST(OnnxSequences, GrowAndShrink) {
  const std::vector<OnnxNode> nodes = {node("SequenceEmpty", {}, {"none"}),
                                       node("SequenceInsert", {"none", "x"}, {"one"}),
                                       node("SequenceInsert", {"one", "x", "first"}, {"two"}),
                                       node("SequenceErase", {"two"}, {"s"}),
                                       node("SequenceAt", {"s", "first"}, {"a"}),
                                       node("MatMul", {"a", "w"}, {"y"})};
  OnnxTensor first = wholes("first", {0});
  first.dims.clear();
  EXPECT_EQ(refusal(model_of({floats("w", {9, 5}), first}, nodes)), "accepted");
  std::vector<OnnxNode> empty = nodes;
  empty[4] = node("SequenceAt", {"none", "first"}, {"a"});
  EXPECT_THAT(refusal(model_of({floats("w", {9, 5}), first}, empty)), HasSubstr("axis 0"));
}

TEST(OnnxSequences, OfInputsHaveNoKnownLength) {
  OnnxModel model = model_of({floats("w", {9, 5})}, {node("MatMul", {"x", "w"}, {"y"})});
  model.graph.inputs.push_back(input("list", {2, 3}));
  model.graph.inputs.back().is_tensor = false;
  EXPECT_THAT(refusal(model), HasSubstr("how many tensors it has"));
}

TEST(OnnxOptionals, AreTheirValues) {
  const Graph graph =
      built(model_of({floats("w", {9, 5})},
                     {node("Optional", {"x"}, {"o"}), node("OptionalGetElement", {"o"}, {"e"}),
                      node("MatMul", {"e", "w"}, {"y"})}));
  EXPECT_EQ(parameter_count(graph).value(), 45);
}

// Paddings as timm's exporters compute them: max(17 - 9, 0) / 2 on each side of the last dimension.
TEST(OnnxValues, PaddingsMayBeClipped) {
  OnnxTensor whole = floats("whole", {6});
  whole.reals = {0.0, 0.0, -1.0, 0.0, 0.0, 8.0};
  OnnxNode cast = with_whole(node("Cast", {"r"}, {"widths"}), "to", 7);
  OnnxModel model =
      model_of({whole, number("least", 0.0), floats("w", {17, 5})},
               {node("Clip", {"whole", "least"}, {"r"}), cast, node("Pad", {"x", "widths"}, {"p"}),
                node("MatMul", {"p", "w"}, {"y"})});
  model.graph.buffers = {"whole"};
  EXPECT_EQ(forward_flops(built(model)).value(), 2.0 * 8 * 17 * 5);
}

// Positions that no data is in, through a convolution that trains.
TEST(OnnxValues, ConstantsMayBeConvolved) {
  const Graph graph =
      built(model_of({floats("p", {1, 4, 9}), floats("v", {8, 4, 1}), floats("u", {4, 8, 1})},
                     {node("Relu", {"p"}, {"r"}), node("Conv", {"r", "v"}, {"e"}),
                      node("Conv", {"e", "u"}, {"d"}), node("Add", {"x", "d"}, {"y"})}));
  EXPECT_EQ(parameter_count(graph).value(), 36 + 32 + 32);
}

// torch's exporter of repeat_interleave: repeats are 1 but for one axis, which OneHot marks.
TEST(OnnxValues, RepeatsMayBeMarkedByOneHot) {
  OnnxModel model =
      model_of({wholes("axis", {1}), wholes("rank", {3}), wholes("off_on", {1, 2}),
                wholes("flat", {-1}), floats("w", {9, 5})},
               {node("OneHot", {"axis", "rank", "off_on"}, {"marked"}),
                node("Reshape", {"marked", "flat"}, {"repeats"}),
                node("Tile", {"x", "repeats"}, {"t"}), node("MatMul", {"t", "w"}, {"y"})});
  EXPECT_EQ(forward_flops(built(model)).value(), 2.0 * 2 * 8 * 9 * 5);
  model.graph.initializers[0] = wholes("axis", {-2});
  EXPECT_EQ(forward_flops(built(model)).value(), 2.0 * 2 * 8 * 9 * 5);
  for (const double classes : {-1.0, 1e300}) {
    model.graph.initializers[1] = number("rank", classes);
    EXPECT_THAT(refusal(model), HasSubstr("no number of classes"));
  }
}

// 2 samples of 4 heads, 3 tokens and 8 dimensions: a learned bias (BEiT's distances) hides nothing,
// nor does padding that is the same for all rows.
TEST(OnnxValues, MasksThatHideNoFutureHalveNothing) {
  constexpr double kProduct = 2.0 * 2 * 4 * 3 * 8 * 8;
  constexpr double kWhole = 4.0 * 2 * 4 * 8 * 3 * 3;
  const auto flops = [&](OnnxNode attention) {
    OnnxModel model =
        model_of({floats("w", {8, 8}), floats("table", {4, 3, 3}), floats("hidden", {2, 1, 1, 3})},
                 {node("MatMul", {"x", "w"}, {"h"}), node("Relu", {"table"}, {"bias"}), attention},
                 {2, 4, 3, 8});
    model.graph.buffers = {"hidden"};
    return forward_flops(built(model)).value() - kProduct;
  };
  EXPECT_EQ(flops(node("Attention", {"h", "h", "h"}, {"y"})), kWhole);
  EXPECT_EQ(flops(node("Attention", {"h", "h", "h", "bias"}, {"y"})), kWhole);
  EXPECT_EQ(flops(node("Attention", {"h", "h", "h", "hidden"}, {"y"})), kWhole);
  EXPECT_EQ(flops(with_whole(node("Attention", {"h", "h", "h"}, {"y"}), "is_causal", 1)),
            kWhole / 2);
}

TEST(OnnxValues, BlocksBecomePictures) {
  OnnxNode fold = node("Col2Im", {"x", "picture", "block"}, {"f"});
  OnnxModel model =
      model_of({wholes("picture", {6, 6}), wholes("block", {2, 2}), floats("w", {6, 5})},
               {fold, node("MatMul", {"f", "w"}, {"y"})}, {2, 12, 9});
  EXPECT_EQ(forward_flops(built(model)).value(), 2.0 * 2 * 3 * 6 * 6 * 5);
  model.graph.initializers[0] = wholes("picture", {6, 0});
  EXPECT_THAT(refusal(model), HasSubstr("blocks that do not fit"));
}

}  // namespace
}  // namespace steelyard::model
