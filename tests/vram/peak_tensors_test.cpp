// The tensors at the peak of programs made by hand: who they are, where they are made and freed.
// Sizes are multiples of 32 MiB, which the allocator does not round.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "vram/vram.h"

namespace steelyard::vram {
namespace {

using facts::VramCategory;
using step::Body;
using step::Event;
using step::EventKind;
using step::PhaseKind;
using step::Program;
using namespace literals;

std::int32_t slot(Program& program, Bytes bytes, VramCategory category, const char* name) {
  program.names.emplace_back(name);
  const auto index = static_cast<std::int32_t>(program.names.size()) - 1;
  program.slots.push_back({bytes, category, step::Stream::compute, index});
  return static_cast<std::int32_t>(program.slots.size()) - 1;
}

Body body(std::vector<Event> events, std::int64_t repeat, const char* layer,
          bool reversed = false) {
  return {layer, repeat, reversed, std::move(events)};
}

step::Pass pass(PhaseKind kind, std::vector<Body> bodies) {
  return {1, {{kind, std::move(bodies)}}};
}

Answer tensors_of(const Program& program) {
  facts::DeviceMemoryConstants device;
  device.gemm_handles = 0;
  Request request;
  request.program = &program;
  request.device = &device;
  request.tensors = true;
  return replay(request);
}

// A weight for ever; three layers keep 32 MiB each; backward of the last one makes 64 MiB in a work
// called "product" and lets both go there. At the peak: 128 + 3 x 32 + 64.
TEST(PeakTensors, GroupsByOperatorAndLayerWithBirthAndDeath) {
  Program program;
  const auto weight = slot(program, 128_MiB, VramCategory::parameters, "weight");
  const auto kept = slot(program, 32_MiB, VramCategory::activations, "kept");
  const auto inner = slot(program, 64_MiB, VramCategory::temporaries, "inner");
  program.slots[1].dtype = facts::DType::bf16;
  program.slots[1].extent = {{4096, 4096}, 2};
  program.names.emplace_back("product");
  program.work.push_back({});
  program.work.back().name = static_cast<std::int32_t>(program.names.size()) - 1;
  program.setup = {pass(PhaseKind::setup, {body({{EventKind::allocate, weight}}, 1, "all")})};
  program.step = {pass(PhaseKind::forward, {body({{EventKind::allocate, kept}}, 3, "h")}),
                  pass(PhaseKind::backward, {body({{EventKind::allocate, inner},
                                                   {EventKind::work, 0},
                                                   {EventKind::free, inner},
                                                   {EventKind::free, kept}},
                                                  3, "h", true)})};
  const Answer answer = tensors_of(program);
  EXPECT_EQ(answer.memory.peak_allocated, 288_MiB);
  ASSERT_EQ(answer.tensors.size(), 3U);

  const facts::TensorGroup& largest = answer.tensors[0];
  EXPECT_EQ(largest.operation, "weight");
  EXPECT_EQ(largest.bytes, 128_MiB);
  EXPECT_EQ(largest.layer, "all");
  EXPECT_EQ(largest.born.phase, "setup");
  EXPECT_FALSE(largest.freed.has_value());
  EXPECT_TRUE(largest.shape.empty());

  const facts::TensorGroup& layers = answer.tensors[1];
  EXPECT_EQ(layers.operation, "kept");
  EXPECT_EQ(layers.layer, "h.0-2");
  EXPECT_EQ(layers.tensors, 3);
  EXPECT_EQ(layers.bytes, 96_MiB);
  EXPECT_EQ(layers.shape, (std::vector<std::int64_t>{4096, 4096}));  // x 2 bytes = 32 MiB
  EXPECT_EQ(layers.dtype, "bf16");
  EXPECT_EQ(layers.born.phase, "forward");
  ASSERT_TRUE(layers.freed.has_value());
  EXPECT_EQ(layers.freed->phase, "backward");
  EXPECT_EQ(layers.freed->layer, "h.0-2");
  EXPECT_EQ(layers.freed->operation, "product");

  EXPECT_EQ(answer.tensors[2].operation, "inner");
  EXPECT_EQ(answer.tensors[2].layer, "h.2");  // backward begins at the last layer
  EXPECT_EQ(answer.tensors[2].tensors, 1);
}

TEST(PeakTensors, ExpertsThatAreAlikeAreOneGroup) {
  Program program;
  const auto up = slot(program, 32_MiB, VramCategory::parameters, "mlp.experts.0.up.weight");
  const auto next = slot(program, 32_MiB, VramCategory::parameters, "mlp.experts.17.up.weight");
  const auto down = slot(program, 32_MiB, VramCategory::parameters, "mlp.experts.17.down.weight");
  const auto other = slot(program, 64_MiB, VramCategory::parameters, "mlp.shared_experts.up");
  program.setup = {pass(PhaseKind::setup, {body({{EventKind::allocate, up},
                                                 {EventKind::allocate, next},
                                                 {EventKind::allocate, down},
                                                 {EventKind::allocate, other}},
                                                2, "h")})};
  const Answer answer = tensors_of(program);
  ASSERT_EQ(answer.tensors.size(), 3U);
  EXPECT_EQ(answer.tensors[0].bytes, 128_MiB);
  EXPECT_EQ(answer.tensors[1].bytes, 128_MiB);
  EXPECT_EQ(answer.tensors[2].operation, "mlp.experts.17.down.weight");  // the only one
  const auto experts =
      std::ranges::find_if(answer.tensors, [](const auto& group) { return group.tensors == 4; });
  ASSERT_NE(experts, answer.tensors.end());
  EXPECT_EQ(experts->operation, "mlp.experts.*.up.weight");
}

// A gradient that the optimizer reads is the tensor that the product made; one carried from layer
// to layer keeps its birth.
TEST(PeakTensors, HandedOverTensorsKeepTheirBirth) {
  Program program;
  const auto fresh = slot(program, 32_MiB, VramCategory::temporaries, "product");
  const auto kept = slot(program, 32_MiB, VramCategory::gradients, "gradient");
  const auto handed = slot(program, 64_MiB, VramCategory::temporaries, "handed");
  const auto taken = slot(program, 64_MiB, VramCategory::temporaries, "taken");
  const auto update = slot(program, 96_MiB, VramCategory::temporaries, "update");
  program.slots[static_cast<std::size_t>(kept)].outlives_micro_batch = true;
  program.gradients = {{fresh, kept}};
  program.step = {
      pass(PhaseKind::backward,
           {body({{EventKind::allocate, handed}, {EventKind::carry, handed}}, 1, "head"),
            body({{EventKind::adopt, taken},
                  {EventKind::allocate, fresh},
                  {EventKind::keep_gradient, 0}},
                 1, "h")}),
      pass(PhaseKind::optimizer,
           {body({{EventKind::allocate, update}, {EventKind::free, update}}, 1, "h")}),
      pass(PhaseKind::zero_grad,
           {body({{EventKind::free, kept}, {EventKind::free, taken}}, 1, "h")})};
  const Answer answer = tensors_of(program);
  EXPECT_EQ(answer.memory.peak_allocated, 192_MiB);  // 64 + 32 + 96
  ASSERT_EQ(answer.tensors.size(), 3U);
  EXPECT_EQ(answer.tensors[0].operation, "update");
  EXPECT_EQ(answer.tensors[1].operation, "handed");
  EXPECT_EQ(answer.tensors[1].layer, "head");
  EXPECT_EQ(answer.tensors[1].freed->phase, "zero_grad");
  EXPECT_EQ(answer.tensors[2].operation, "product");
  EXPECT_EQ(answer.tensors[2].category, VramCategory::gradients);
}

TEST(PeakTensors, NoneUnlessAskedFor) {
  Program program;
  const auto only = slot(program, 32_MiB, VramCategory::temporaries, "only");
  program.step = {pass(PhaseKind::forward,
                       {body({{EventKind::allocate, only}, {EventKind::free, only}}, 1, "h")})};
  facts::DeviceMemoryConstants device;
  Request request;
  request.program = &program;
  request.device = &device;
  EXPECT_TRUE(replay(request).tensors.empty());
}

}  // namespace
}  // namespace steelyard::vram
