// What state-space mixers keep, in bytes worked by hand: a batch of 1, 128 tokens of 64 features in
// bf16; 8 heads of 16 channels (128), 2 groups of 16 states: the projection in is 2 x 128 + 2 x 32
// + 8 = 328 wide.
#include "step/state_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/model.h"
#include "step/block_trace.h"
#include "step/tensor_parallel.h"

namespace steelyard::step {
namespace {

using namespace literals;

constexpr std::int64_t kTokens = 128;

model::Graph graph_of(std::int64_t batch, const facts::Object& changes = {}) {
  facts::Value config{facts::Object{{"model_type", "megatron_gpt"},
                                    {"hybrid-layer-pattern", "M-"},
                                    {"num-layers", 2},
                                    {"hidden-size", 64},
                                    {"num-attention-heads", 4},
                                    {"ffn-hidden-size", 128},
                                    {"mamba-head-dim", 16},
                                    {"mamba-state-dim", 16},
                                    {"mamba-num-groups", 2},
                                    {"vocab-size", 512},
                                    {"max-position-embeddings", 128},
                                    {"position-embedding-type", "none"},
                                    {"normalization", "RMSNorm"},
                                    {"add-bias-linear", false},
                                    {"hidden-dropout", 0.0}}};
  for (const auto& [key, value] : changes) config.set(key, value);
  auto graph = model::build({"test", config, ""}, {.batch = batch, .sequence = kTokens});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph ? *graph : model::Graph();
}

struct Layer {
  Program program;
  BlockTrace trace;

  [[nodiscard]] Bytes saved() const {
    Bytes sum;
    for (const SavedStorage& storage : trace.saved) {
      if (!storage.external) sum += storage.bytes;
    }
    return sum;
  }
  // Every slot that is born in backward dies there, but for what goes on.
  [[nodiscard]] std::int64_t left() const {
    std::map<std::int32_t, int> live;
    for (const auto* events : {&trace.forward, &trace.after_forward, &trace.backward}) {
      for (const Event& event : *events) {
        if (event.kind == EventKind::allocate || event.kind == EventKind::adopt) {
          ++live[event.index];
        } else if (event.kind == EventKind::free || event.kind == EventKind::carry) {
          --live[event.index];
        }
      }
    }
    return std::count_if(live.begin(), live.end(), [](const auto& one) { return one.second < 0; });
  }
};

Layer layer_of(const model::Graph& graph, std::int64_t context = 1) {
  BlockOptions options;
  options.tape.arithmetic.compute = DType::bf16;
  options.tape.context.ranks = context;
  options.weight_dtype = DType::bf16;
  options.variants.rms_norm = RmsNorm::native;
  SharedTensors shared;
  Layer layer;
  layer.trace =
      trace_block(layer.program, graph, graph.segments[1].blocks[0], options, shared, false, false);
  return layer;
}

// The input and its norm's result 2 x 128 x 64, a statistic per row; what the projection gave, 128
// x 328; the scan's result before its gate and behind it, and the second norm's result, 3 x 128 x
// 128; two statistics per row. Neither the convolution nor the states.
TEST(StateScan, KeepsItsInputAndItsResult) {
  const Layer layer = layer_of(graph_of(1));
  const std::int64_t elements = 2 * 128 * 64 + 128 * 328 + 3 * 128 * 128;
  EXPECT_EQ(layer.saved(), Bytes(2 * elements + 4 * 128 + 2 * 4 * 128));
  EXPECT_EQ(layer.left(), 0);
}

// Two samples: twice as much; the copies into the order of the samples replace what they were made
// of.
TEST(StateScan, KeepsNoMoreForCopies) {
  EXPECT_EQ(layer_of(graph_of(2)).saved(), 2 * layer_of(graph_of(1)).saved());
}

// Over two ranks each holds 4 heads and one group: 164 columns; over four it would be half a group.
TEST(StateScan, SplitsItsHeads) {
  const auto half = split_over_ranks(graph_of(1), 2, false);
  ASSERT_TRUE(half) << to_text(half.error());
  const std::int64_t elements = 2 * 128 * 64 + 128 * 164 + 3 * 128 * 64;
  EXPECT_EQ(layer_of(*half).saved(), Bytes(2 * elements + 4 * 128 + 4 * 128));
  const auto quarter = split_over_ranks(graph_of(1), 4, false);
  ASSERT_FALSE(quarter);
  EXPECT_EQ(quarter.error().subject, "parallel.tensor");
}

// With two context-parallel ranks a rank scans all 256 tokens for half of the heads: as much.
TEST(StateScan, ScansAllTokensOfItsHeads) {
  EXPECT_EQ(layer_of(graph_of(1), 2).saved(), layer_of(graph_of(1)).saved());
}

// The head's logits for the next and a further token share a weight; the layer of the prediction
// stands before it, behind the model's own.
TEST(Predictions, StandBeforeTheHead) {
  const model::Graph graph =
      graph_of(1, {{"hybrid-layer-pattern", "M-/*"}, {"position-embedding-type", "rope"}});
  ASSERT_EQ(graph.tail, 2);
  const model::Block& head = graph.segments.back().blocks[0];
  EXPECT_EQ(head.weights.size(), 1u);
  EXPECT_EQ(head.operators.size(), 6u);  // chunks, logits, loss, attached, logits, loss
  const auto split = split_over_ranks(graph, 2, true);
  ASSERT_TRUE(split) << to_text(split.error());
  const model::Block& block = split->segments[split->segments.size() - 2].blocks[0];
  EXPECT_EQ(block.name, "mtp");
  const auto whole =
      std::find_if(block.operators.begin(), block.operators.end(),
                   [](const auto& op) { return op.kind == model::OperatorKind::gather_features; });
  ASSERT_NE(whole, block.operators.end());
  const auto shape_of = [&](model::TensorRef ref) {
    return block.tensors[static_cast<std::size_t>(ref.index)].shape;
  };
  EXPECT_EQ(shape_of(whole->inputs[0]), (model::Shape{1, 128, 32}));
  EXPECT_EQ(shape_of(whole->outputs[0]), (model::Shape{1, 64, 64}));
}

}  // namespace
}  // namespace steelyard::step
