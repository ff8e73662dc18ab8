// Programs made by hand, replayed: every expected figure is a sum that the comment beside it gives.
//
// Sizes are multiples of 32 MiB, which the allocator neither rounds nor packs: each block is a
// segment of its own until it is freed and reused.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <utility>
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

// A device that holds nothing but tensors.
facts::DeviceMemoryConstants bare_device() {
  facts::DeviceMemoryConstants device;
  device.gemm_handles = 0;
  return device;
}

std::int32_t slot(Program& program, Bytes bytes, VramCategory category = VramCategory::temporaries,
                  const char* name = "made", step::Stream stream = step::Stream::compute) {
  program.names.emplace_back(name);
  const auto index = static_cast<std::int32_t>(program.names.size()) - 1;
  program.slots.push_back({bytes, category, stream, index});
  return static_cast<std::int32_t>(program.slots.size()) - 1;
}

Event make(std::int32_t index) {
  return {EventKind::allocate, index};
}
Event drop(std::int32_t index) {
  return {EventKind::free, index};
}
Event product(Program& program) {
  program.work.emplace_back().kind = step::WorkKind::gemm;
  return {EventKind::work, static_cast<std::int32_t>(program.work.size()) - 1};
}
Event adopt(std::int32_t index) {
  return {EventKind::adopt, index};
}
Event carry(std::int32_t index) {
  return {EventKind::carry, index};
}

Body body(std::vector<Event> events, std::int64_t repeat = 1, const char* layer = "layer",
          bool reversed = false) {
  return {layer, repeat, reversed, std::move(events)};
}

step::Pass pass(PhaseKind kind, std::vector<Body> bodies, std::int64_t repeat = 1) {
  return {repeat, {{kind, std::move(bodies)}}};
}

Answer answer_of(const Program& program, std::optional<Bytes> capacity = {},
                 const facts::DeviceMemoryConstants& device = bare_device()) {
  return replay({&program, &device, capacity, true});
}

TEST(Replay, ThePeakIsTheFullestMomentNotTheSum) {
  Program program;
  const auto parameters = slot(program, 32_MiB, VramCategory::parameters);
  const auto early = slot(program, 64_MiB);
  const auto late = slot(program, 96_MiB);
  program.setup = {pass(PhaseKind::setup, {body({make(parameters)})})};
  program.step = {
      pass(PhaseKind::forward, {body({make(early), drop(early), make(late), drop(late)})})};
  const facts::RankMemory memory = answer_of(program).memory;
  EXPECT_EQ(memory.peak_allocated, 128_MiB);  // 32 + max(64, 96), not 32 + 64 + 96
  EXPECT_EQ(memory.by_category[VramCategory::parameters], 32_MiB);
  EXPECT_EQ(memory.by_category[VramCategory::temporaries], 96_MiB);
  // early's segment of 64 is too small for late: 32 + 64 + 96 reserved, the free 64 is the cache.
  EXPECT_EQ(memory.peak_reserved, 192_MiB);
  EXPECT_EQ(memory.by_category[VramCategory::allocator], 64_MiB);
  EXPECT_EQ(memory.steady_allocated, 32_MiB);
}

// Four layers keep 32 MiB each in forward and give them back in reverse; a layer's backward needs
// another 64 MiB while its own are still there.
Program four_layers() {
  Program program;
  const auto kept = slot(program, 32_MiB, VramCategory::activations);
  const auto inner = slot(program, 64_MiB, VramCategory::temporaries, "inner");
  program.step = {
      pass(PhaseKind::forward, {body({make(kept)}, 4, "h")}),
      pass(PhaseKind::backward, {body({make(inner), drop(inner), drop(kept)}, 4, "h", true)})};
  return program;
}

TEST(Replay, EveryIterationOfABodyHoldsItsOwnInstance) {
  const Program program = four_layers();
  const facts::RankMemory memory = answer_of(program).memory;
  EXPECT_EQ(memory.peak_allocated, 192_MiB);  // 4 x 32 + 64
  EXPECT_EQ(memory.by_category[VramCategory::activations], 128_MiB);
  EXPECT_EQ(memory.steady_allocated, 0_B);
  EXPECT_EQ(memory.peak_at.phase, "backward");
  EXPECT_EQ(memory.peak_at.layer, "h.3");  // backward begins at the last layer
  EXPECT_EQ(memory.peak_at.operation, "inner");
}

TEST(Replay, TheTimelineFollowsTheLayersForthAndBack) {
  const std::vector<facts::Moment> moments = answer_of(four_layers()).timeline;
  struct Expected {
    const char *phase, *layer;
    Bytes activations, temporaries;
  };
  const std::vector<Expected> expected = {
      {"forward", "h.0", 32_MiB, 0_B},      {"forward", "h.1", 64_MiB, 0_B},
      {"forward", "h.2", 96_MiB, 0_B},      {"forward", "h.3", 128_MiB, 0_B},
      {"backward", "h.3", 128_MiB, 64_MiB}, {"backward", "h.2", 96_MiB, 64_MiB},
      {"backward", "h.1", 64_MiB, 64_MiB},  {"backward", "h.0", 32_MiB, 64_MiB},
  };
  ASSERT_EQ(moments.size(), expected.size());  // of one step, not of both that are replayed
  for (std::size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(moments[i].phase, expected[i].phase);
    EXPECT_EQ(moments[i].layer, expected[i].layer);
    EXPECT_EQ(moments[i].live[VramCategory::activations], expected[i].activations);
    EXPECT_EQ(moments[i].live[VramCategory::temporaries], expected[i].temporaries);
  }
}

TEST(Replay, NoTimelineUnlessAskedFor) {
  const Program program = four_layers();
  const facts::DeviceMemoryConstants device = bare_device();
  EXPECT_TRUE(replay({&program, &device, {}, false}).timeline.empty());
}

// A backward body over two layers frees the instances of layers 1 and 0 and leaves layer 2's.
TEST(Replay, IterationsOfAnotherBodyFreeTheSameLayersInstance) {
  Program program;
  const auto kept = slot(program, 32_MiB, VramCategory::activations);
  program.step = {pass(PhaseKind::forward, {body({make(kept)}, 3, "h")}),
                  pass(PhaseKind::backward, {body({drop(kept)}, 2, "h", true)}),
                  // Layer 2's is still there: 32 + 2 x 32.
                  pass(PhaseKind::forward, {body({make(kept)}, 2, "again")}),
                  pass(PhaseKind::backward, {body({drop(kept)}, 3, "again", true)})};
  const Answer answer = answer_of(program);
  EXPECT_EQ(answer.memory.peak_allocated, 96_MiB);
  EXPECT_EQ(answer.memory.steady_allocated, 0_B);
}

TEST(Replay, ATensorIsCarriedFromBodyToBodyAndLayerToLayer) {
  Program program;
  const auto embedded = slot(program, 32_MiB);
  const auto input = slot(program, 32_MiB);
  const auto output = slot(program, 32_MiB);
  const auto last = slot(program, 32_MiB);
  program.step = {pass(PhaseKind::forward,
                       {body({make(embedded), carry(embedded)}, 1, "embed"),
                        body({adopt(input), make(output), drop(input), carry(output)}, 3, "h"),
                        body({adopt(last), drop(last)}, 1, "head")})};
  const facts::RankMemory memory = answer_of(program).memory;
  EXPECT_EQ(memory.peak_allocated, 64_MiB);  // a layer's input and output, however many layers
  EXPECT_EQ(memory.steady_allocated, 0_B);
}

TEST(Replay, AlikeMicroBatchesNeedNoMoreThanTwoOfThem) {
  Program program;
  const auto gradient = slot(program, 32_MiB, VramCategory::gradients);
  const auto activation = slot(program, 64_MiB, VramCategory::activations);
  const auto first =
      pass(PhaseKind::forward, {body({make(activation), make(gradient), drop(activation)})});
  const auto later = [&](std::int64_t repeat) {
    return pass(PhaseKind::forward, {body({make(activation), drop(activation)})}, repeat);
  };
  const auto end = pass(PhaseKind::zero_grad, {body({drop(gradient)})});
  for (const std::int64_t repeat : {1, 2, 1'000'000'000}) {
    program.step = {first, later(repeat), end};
    const facts::RankMemory memory = answer_of(program).memory;
    EXPECT_EQ(memory.peak_allocated, 96_MiB) << repeat;
    EXPECT_EQ(memory.peak_reserved, 96_MiB) << repeat;
    EXPECT_EQ(memory.steady_allocated, 0_B) << repeat;
  }
}

// 64 MiB on a card of 48: the first micro-batch tells; the other thousand are not played.
TEST(Replay, StopsWhereMemoryRunsOutWhenAsked) {
  Program program;
  const auto activation = slot(program, 64_MiB, VramCategory::activations);
  program.step = {pass(PhaseKind::forward, {body({make(activation), drop(activation)})}, 1000)};
  const facts::DeviceMemoryConstants device = bare_device();
  for (const Bytes capacity : {48_MiB, 64_MiB}) {
    std::atomic<bool> stops = false;
    Request request;
    request.program = &program;
    request.device = &device;
    request.capacity = capacity;
    request.expand_all = true;
    request.stops = &stops;
    const Answer answer = replay(request);
    EXPECT_EQ(stops, capacity < 64_MiB);
    EXPECT_EQ(answer.played, stops ? 1 : 2 * 1000);
  }
}

// Parameters of 32, gradients of 32 freed by zero_grad, or kept until the next forward (FSDP1).
TEST(Replay, SteadyIsWhatStaysBetweenSteps) {
  Program program;
  const auto parameters = slot(program, 32_MiB, VramCategory::parameters);
  const auto gradient = slot(program, 32_MiB, VramCategory::gradients);
  program.setup = {pass(PhaseKind::setup, {body({make(parameters)})})};
  program.step = {pass(PhaseKind::backward, {body({make(gradient)})}),
                  pass(PhaseKind::zero_grad, {body({drop(gradient)})})};
  EXPECT_EQ(answer_of(program).memory.steady_allocated, 32_MiB);
  program.gradients_outlive_step = true;
  EXPECT_EQ(answer_of(program).memory.steady_allocated, 64_MiB);
  EXPECT_EQ(answer_of(program).memory.peak_allocated, 64_MiB);
}

// Step 1: parameters 32, backward 96, freed; then states 64 are born inside the cached 96, and
// split it. Step 2: 96 do not fit into the rest of 32: a new segment.
TEST(Replay, StatesBornInTheFirstStepTakeTheCacheOfTheFirstBackward) {
  Program program;
  const auto parameters = slot(program, 32_MiB, VramCategory::parameters);
  const auto states = slot(program, 64_MiB, VramCategory::optimizer);
  const auto activation = slot(program, 96_MiB, VramCategory::activations);
  program.setup = {pass(PhaseKind::setup, {body({make(parameters)})})};
  program.first_optimizer = {pass(PhaseKind::setup, {body({make(states)})})};
  program.step = {pass(PhaseKind::backward, {body({make(activation), drop(activation)})}),
                  pass(PhaseKind::optimizer, {body({})})};
  const facts::RankMemory memory = answer_of(program).memory;
  EXPECT_EQ(memory.peak_allocated, 192_MiB);  // 32 + 64 + 96, in the second step
  EXPECT_EQ(memory.peak_reserved, 224_MiB);   // 32 + 96 + 96
  EXPECT_EQ(memory.steady_allocated, 96_MiB);
  EXPECT_EQ(memory.by_category[VramCategory::optimizer], 64_MiB);
  EXPECT_EQ(memory.by_category[VramCategory::allocator], 32_MiB);
}

TEST(Replay, ManagedMemoryIsOnTheDeviceButNotInTheAllocator) {
  Program program;
  const auto parameters = slot(program, 32_MiB, VramCategory::parameters);
  const auto states = slot(program, 64_MiB, VramCategory::optimizer);
  program.slots[static_cast<std::size_t>(states)].managed = true;
  program.setup = {pass(PhaseKind::setup, {body({make(states), make(parameters)})})};
  const facts::RankMemory memory = answer_of(program).memory;
  EXPECT_EQ(memory.peak_allocated, 32_MiB);
  EXPECT_EQ(memory.peak_reserved, 32_MiB);
  EXPECT_EQ(memory.by_category[VramCategory::optimizer], 64_MiB);
  EXPECT_EQ(memory.peak_device_used, 96_MiB);
}

// 32 parameters, 64 activations, 10 context and 64 managed states on a card of 128: 42 of the
// states' bytes have no room. On one of 96 none has, and the rest does not fit either.
TEST(Replay, AFullCardLeavesManagedMemoryToTheHost) {
  Program program;
  const auto parameters = slot(program, 32_MiB, VramCategory::parameters);
  const auto states = slot(program, 64_MiB, VramCategory::optimizer);
  const auto activation = slot(program, 64_MiB, VramCategory::activations);
  program.slots[static_cast<std::size_t>(states)].managed = true;
  program.setup = {pass(PhaseKind::setup, {body({make(states), make(parameters)})})};
  program.step = {pass(PhaseKind::forward, {body({make(activation), drop(activation)})})};
  facts::DeviceMemoryConstants device = bare_device();
  device.context = 10_MiB;
  const auto on_a_card_of = [&](Bytes capacity) {
    return replay({.program = &program, .device = &device, .capacity = capacity}).memory;
  };
  const facts::RankMemory full = on_a_card_of(128_MiB);
  EXPECT_EQ(full.peak_device_used, 128_MiB);
  EXPECT_EQ(full.paged_out, 42_MiB);
  EXPECT_EQ(full.by_category[VramCategory::optimizer], 22_MiB);
  EXPECT_EQ(full.peak_reserved, 96_MiB);
  const facts::RankMemory roomy = on_a_card_of(256_MiB);
  EXPECT_EQ(roomy.peak_device_used, 170_MiB);
  EXPECT_EQ(roomy.paged_out, 0_B);
  const facts::RankMemory small = on_a_card_of(96_MiB);
  EXPECT_EQ(small.paged_out, 64_MiB);
  EXPECT_EQ(small.peak_device_used, 106_MiB);
}

TEST(Replay, CategoriesSumToTheDevicesUse) {
  Program program;
  program.communicators = 2;
  const auto parameters = slot(program, Bytes(100), VramCategory::parameters);
  const auto gradient = slot(program, 32_MiB + Bytes(1), VramCategory::gradients);
  program.setup = {pass(PhaseKind::setup, {body({make(parameters)})})};
  program.step = {
      pass(PhaseKind::forward, {body({product(program)})}),
      pass(PhaseKind::backward, {body({product(program), make(gradient), drop(gradient)})})};
  facts::DeviceMemoryConstants device;
  device.context = 300_MiB;
  device.collective_per_channel = 4_MiB;
  device.collective_channels = 16;
  device.nvls = 32_MiB;
  device.gemm_workspace = 32_MiB;
  device.gemm_handles = 2;
  const facts::RankMemory memory = answer_of(program, {}, device).memory;
  EXPECT_EQ(memory.by_category[VramCategory::parameters], 512_B);  // the least block
  EXPECT_EQ(memory.by_category[VramCategory::gradients], 32_MiB + 512_B);
  EXPECT_EQ(memory.by_category[VramCategory::runtime], 364_MiB);        // 300 + 2 x 32
  EXPECT_EQ(memory.by_category[VramCategory::communication], 192_MiB);  // 2 x (16 x 4 + 32)
  EXPECT_EQ(memory.peak_allocated, 96_MiB + 1024_B);
  // Segments: 2 x 32, 2 MiB for small blocks, 34 for the gradient (multiples of 2 MiB).
  EXPECT_EQ(memory.peak_reserved, 100_MiB);
  EXPECT_EQ(memory.by_category.total(), memory.peak_device_used);
  EXPECT_EQ(memory.peak_device_used, 100_MiB + 300_MiB + 192_MiB);
}

// A workspace comes out of what is free when its thread multiplies for the first time, and stays.
TEST(Replay, WorkspacesAreMadeAtTheFirstProduct) {
  facts::DeviceMemoryConstants device;
  device.gemm_workspace = 32_MiB;
  device.gemm_handles = 2;
  const auto play = [&](bool multiplies) {
    Program program;
    const auto early = slot(program, 40_MiB);
    std::vector<Event> events = {make(early), drop(early)};
    if (multiplies) events.push_back(product(program));
    program.step = {pass(PhaseKind::forward, {body(events)}),
                    pass(PhaseKind::backward, {body(events)})};
    return answer_of(program, {}, device).memory;
  };
  EXPECT_EQ(play(false).peak_reserved, 40_MiB);
  EXPECT_EQ(play(false).steady_allocated, 0_B);
  // Forward's workspace takes 32 of the 40 MiB that lie free; backward's lie in the second segment
  // of 40, which the tensor itself needed then. From the second step on the tensor needs a third.
  EXPECT_EQ(play(true).peak_reserved, 120_MiB);
  EXPECT_EQ(play(true).steady_allocated, 64_MiB);
}

// 64 MiB are freed into the cache before 96 are wanted.
Program cache_in_the_way() {
  Program program;
  const auto early = slot(program, 64_MiB);
  const auto late = slot(program, 96_MiB);
  program.step = {
      pass(PhaseKind::forward, {body({make(early), drop(early), make(late), drop(late)})})};
  return program;
}

TEST(Replay, ANearlyFullCardGivesCacheBack) {
  const Program program = cache_in_the_way();
  EXPECT_EQ(answer_of(program).memory.peak_reserved, 160_MiB);  // endless: both segments
  EXPECT_EQ(answer_of(program, 160_MiB).memory.peak_reserved, 160_MiB);
  const facts::RankMemory tight = answer_of(program, 128_MiB).memory;
  EXPECT_EQ(tight.peak_allocated, 96_MiB);
  EXPECT_EQ(tight.peak_reserved, 96_MiB);  // the segment of 64 went back first
  EXPECT_EQ(tight.peak_device_used, 96_MiB);
}

TEST(Replay, ATooSmallCardStillSaysWhatWasNeeded) {
  const Program program = cache_in_the_way();
  const facts::RankMemory memory = answer_of(program, 40_MiB).memory;
  EXPECT_EQ(memory.peak_allocated, 96_MiB);
  EXPECT_GE(memory.peak_device_used, 96_MiB);
  EXPECT_GT(memory.peak_device_used, 40_MiB);
}

TEST(Replay, WhatIsOutsideOfTheAllocatorLeavesItLess) {
  const Program program = cache_in_the_way();
  facts::DeviceMemoryConstants device = bare_device();
  device.context = 100_MiB;
  // 200 - 100 of the context are 100 for tensors: 96 fit only when the 64 go back.
  const facts::RankMemory memory = answer_of(program, 200_MiB, device).memory;
  EXPECT_EQ(memory.peak_reserved, 96_MiB);
  EXPECT_EQ(memory.peak_device_used, 196_MiB);
}

TEST(Replay, WhatASideStreamFreedDoesNotServeTheComputeStream) {
  Program program;
  const auto buffer =
      slot(program, 32_MiB, VramCategory::communication, "buffer", step::Stream::all_gather);
  const auto activation = slot(program, 32_MiB, VramCategory::activations);
  program.step = {pass(PhaseKind::forward,
                       {body({make(buffer), drop(buffer), make(activation), drop(activation)})})};
  const facts::RankMemory memory = answer_of(program).memory;
  EXPECT_EQ(memory.peak_allocated, 32_MiB);
  EXPECT_EQ(memory.peak_reserved, 64_MiB);
  program.slots[static_cast<std::size_t>(buffer)].stream = step::Stream::compute;
  EXPECT_EQ(answer_of(program).memory.peak_reserved, 32_MiB);
}

TEST(Replay, ThePeakOfTheSetupIsNamed) {
  Program program;
  program.ranks = 8;
  const auto parameters = slot(program, 32_MiB, VramCategory::parameters, "weight");
  program.setup = {pass(PhaseKind::setup, {body({make(parameters)}, 1, "embed")})};
  const facts::RankMemory memory = answer_of(program).memory;
  EXPECT_EQ(memory.peak_at.phase, "setup");
  EXPECT_EQ(memory.peak_at.layer, "embed");
  EXPECT_EQ(memory.peak_at.operation, "weight");
  EXPECT_EQ(memory.ranks, 8);
}

// Paged states (managed) are born after the first backward; the second backward is as full for the
// allocator, and the device holds the states beside it.
TEST(Replay, ManagedStatesCountBesideTheSecondStepsPeak) {
  Program program;
  const auto activation = slot(program, 96_MiB, VramCategory::activations);
  const auto states = slot(program, 64_MiB, VramCategory::optimizer);
  program.slots[static_cast<std::size_t>(states)].managed = true;
  program.first_optimizer = {pass(PhaseKind::setup, {body({make(states)})})};
  program.step = {pass(PhaseKind::backward, {body({make(activation), drop(activation)})}),
                  pass(PhaseKind::optimizer, {body({})})};
  const facts::RankMemory memory = answer_of(program).memory;
  EXPECT_EQ(memory.peak_allocated, 96_MiB);
  EXPECT_EQ(memory.peak_device_used, 160_MiB);
}

}  // namespace
}  // namespace steelyard::vram
