// What blocks hand to each other: a tensor that changes hands, one that the block which made it
// keeps, one whose type differs from the other layers'.
#include <gtest/gtest.h>

#include <algorithm>

#include "model/block_builder.h"
#include "step/block_trace.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

std::int64_t count_of(const std::vector<Event>& events, EventKind kind) {
  return std::count_if(events.begin(), events.end(),
                       [&](const Event& event) { return event.kind == kind; });
}

// conv -> relu, as a block that reads [2,4,8,8]; its products need its own input and output.
model::Block conv_relu(const model::Graph& graph, bool in_place) {
  model::BlockBuilder block(graph, "layers");
  const model::TensorRef x = block.input({2, 4, 8, 8});
  const model::TensorRef h = block.conv("conv", x, 4, {.kernel = 3, .padding = 1});
  const auto relu = model::ActivationKind::relu;
  return block.finish(in_place ? block.activation_in_place("relu", h, relu)
                               : block.activation("relu", h, relu));
}

class Handed : public ::testing::TestWithParam<bool> {
 protected:
  BlockTrace traced() {
    BlockOptions options;
    return trace_block(program_, graph_, block_, options, shared_, false, false);
  }
  model::Graph graph_;
  model::Block block_ = conv_relu(graph_, GetParam());
  Program program_;
  SharedTensors shared_;
};

// A ReLU saves its result, and the next convolution its input, which is the same tensor: the first
// block frees it in its backward pass, the second one never.
TEST_P(Handed, AKeptTensorIsLentNotCarried) {
  const BlockTrace first = traced();
  EXPECT_TRUE(shared_.stream.borrowed);
  EXPECT_EQ(count_of(first.forward, EventKind::adopt), 1);  // its own input was carried to it
  EXPECT_EQ(count_of(first.forward, EventKind::carry), 0);
  const BlockTrace second = traced();
  EXPECT_EQ(count_of(second.forward, EventKind::adopt), 0);
  // [2,4,8,8] in fp32 is 2048 bytes. Saved: the input and the ReLU's result; in place the latter is
  // the convolution's own tensor.
  ASSERT_EQ(first.saved.size(), 2u);
  ASSERT_EQ(second.saved.size(), 2u);
  for (const SavedStorage& saved : first.saved) {
    EXPECT_EQ(saved.bytes, Bytes(2048));
    EXPECT_FALSE(saved.borrowed);
  }
  EXPECT_EQ(second.saved[0].borrowed + second.saved[1].borrowed, 1);
  // Forward allocates the convolution's result and, out of place, the ReLU's; one of both is freed.
  EXPECT_EQ(count_of(first.forward, EventKind::allocate), GetParam() ? 1 : 2);
  EXPECT_EQ(count_of(first.forward, EventKind::free), GetParam() ? 0 : 1);
}

// Backward frees what forward left: of the first block its input and its result, of the second its
// result alone.
TEST_P(Handed, EachTensorIsFreedByItsOwner) {
  const auto frees_of_activations = [&](const BlockTrace& trace) {
    return std::count_if(trace.backward.begin(), trace.backward.end(), [&](const Event& event) {
      return event.kind == EventKind::free &&
             program_.slots[static_cast<std::size_t>(event.index)].category ==
                 facts::VramCategory::activations;
    });
  };
  const BlockTrace first = traced();
  const BlockTrace second = traced();
  EXPECT_EQ(frees_of_activations(first), 2);
  EXPECT_EQ(frees_of_activations(second), 1);
}

// Recomputation keeps the input alone, so the result changes hands.
TEST_P(Handed, ARecomputedBlockKeepsNothingOfItsResult) {
  BlockOptions options;
  options.recompute = Recompute::everything;
  const BlockTrace trace = trace_block(program_, graph_, block_, options, shared_, false, false);
  EXPECT_FALSE(shared_.stream.borrowed);
  EXPECT_EQ(count_of(trace.forward, EventKind::carry), 1);
}

INSTANTIATE_TEST_SUITE_P(Relu, Handed, ::testing::Bool(), [](const auto& row) {
  return std::string(row.param ? "InPlace" : "OutOfPlace");
});

// Under autocast a convolution puts out 16 bits and a norm in fp32: the type that a block receives
// is the one that the block before put out.
TEST(Handover, TypesFollowTheOperators) {
  model::Graph graph;
  Program program;
  SharedTensors shared;
  BlockOptions options;
  options.tape.arithmetic = {.compute = DType::bf16, .autocast = true};
  (void)trace_block(program, graph, conv_relu(graph, true), options, shared, false, false);
  EXPECT_EQ(shared.stream.dtype, DType::bf16);
  model::BlockBuilder norm(graph, "norm");
  const model::TensorRef x = norm.input({2, 4, 8, 8});
  const model::Block block = norm.finish(norm.group_norm("norm", x, 2));
  const BlockTrace trace = trace_block(program, graph, block, options, shared, false, false);
  EXPECT_EQ(shared.stream.dtype, DType::fp32);
  // Its input is cast to fp32, the cast is what it saves: 512 elements, and 2 * 2 * 2 statistics.
  Bytes saved;
  for (const SavedStorage& storage : trace.saved) saved += storage.bytes;
  EXPECT_EQ(saved, Bytes(4 * 512 + 4 * 4 + 4 * 4));
}

// torchvision's ResNet-50 under autocast, a picture at a time: after one forward pass there is what
// autograd keeps, and backward leaves gradients alone. (lifetimes_test.cpp plays whole steps.)
TEST(Handover, RunningStatisticsLiveBesideTheWeights) {
  const model::Graph graph = graph_of({"resnet18",
                                       facts::Object{{"model_type", "torchvision_resnet"},
                                                     {"block", "basic"},
                                                     {"layers", facts::Array{1, 1}}},
                                       ""});
  const Program program = program_for(graph, small_job(), profile_of("pytorch"));
  Bytes buffers;
  play(program, program.setup, [&](const Event& event, std::int64_t) {
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    const std::string& name = program.names[static_cast<std::size_t>(slot.name)];
    if (name.find("running_") != std::string::npos || name.find("num_batches") != std::string::npos)
      buffers += slot.bytes;
  });
  // Norms of 64 channels: stem and two of stage 1; of 128: two of stage 2 and its shortcut's. Mean
  // and variance in fp32, a counter of 8 bytes.
  EXPECT_EQ(buffers, Bytes(3 * (2 * 4 * 64 + 8) + 3 * (2 * 4 * 128 + 8)));
}

}  // namespace
}  // namespace steelyard::step
