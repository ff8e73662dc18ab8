// Layers that are recalled go as those that are played: random programs, with and without.
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "vram/vram.h"

namespace steelyard::vram {
namespace {

using step::Body;
using step::Event;
using step::EventKind;
using step::PhaseKind;
using step::Program;

constexpr int kPrograms = 300;

class RandomPrograms {
 public:
  explicit RandomPrograms(std::uint64_t seed) : random_(seed) {}

  // Layers that keep some of what they make until their backward pass, several micro-batches in
  // flight, sizes of which many are alike.
  Program next() {
    program_ = {};
    program_.names = {"made"};
    sizes_.clear();
    for (std::int64_t i = up_to(3); i >= 0; --i) sizes_.push_back(512 * (1 + up_to(1 << 16)));
    program_.in_flight = 1 + up_to(4);
    program_.micro_batches = 30;
    const std::int64_t layers = 1 + up_to(4);
    Body forward{"layer", layers, false, {}};
    Body backward{"layer", layers, true, {}};
    const std::int32_t carried = slot();
    const std::int32_t before = slot();
    forward.events = {{EventKind::allocate, carried}, {EventKind::carry, carried}};
    Body first = forward;
    first.repeat = 1;
    forward.events = {{EventKind::adopt, before}};
    fill(forward.events, backward.events);
    forward.events.push_back({EventKind::allocate, carried});
    forward.events.push_back({EventKind::carry, carried});
    backward.events.push_back({EventKind::free, before});
    const std::int32_t output = slot();
    Body last{"border", 1, false, {{EventKind::adopt, output}}};
    if (up_to(1) == 0) {  // stays for the step
      its(output).shared = its(output).outlives_micro_batch = true;
      Body end{"border", program_.micro_batches, false, {{EventKind::free, output}}};
      end_ = {{PhaseKind::zero_grad, {end}}};
    } else {
      last.events.push_back({EventKind::free, output});
      end_.clear();
    }
    const step::Phase one{PhaseKind::forward, {first, forward, last}};
    const step::Phase other{PhaseKind::backward, {backward}};
    const std::int64_t ahead = program_.in_flight - 1;
    if (ahead > 0) program_.step.push_back({ahead, {one}});
    program_.step.push_back({program_.micro_batches - ahead, {one, other}});
    if (ahead > 0) program_.step.push_back({ahead, {other}});
    if (!end_.empty()) program_.step.push_back({1, end_});
    return program_;
  }

 private:
  std::int64_t up_to(std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(0, most)(random_);
  }
  step::Slot& its(std::int32_t index) { return program_.slots[static_cast<std::size_t>(index)]; }
  std::int32_t slot() {
    std::int64_t size = sizes_[static_cast<std::size_t>(up_to(std::ssize(sizes_) - 1))];
    if (up_to(9) == 0) size = 0;
    if (up_to(3) == 0) size = 4 * (1 + up_to(1 << 10));
    program_.slots.push_back({Bytes(size)});
    return static_cast<std::int32_t>(program_.slots.size()) - 1;
  }
  // Makes and frees at random; some of what is made is freed by the layer's backward pass.
  void fill(std::vector<Event>& forward, std::vector<Event>& backward) {
    for (std::vector<Event>* events : {&forward, &backward}) {
      std::vector<std::int32_t> alive;
      for (int i = 0; i < 40; ++i) {
        if (alive.empty() || up_to(9) < 6) {
          alive.push_back(slot());
          events->push_back({EventKind::allocate, alive.back()});
          continue;
        }
        const auto which = alive.begin() + up_to(std::ssize(alive) - 1);
        events->push_back({EventKind::free, *which});
        alive.erase(which);
      }
      for (const std::int32_t index : alive) {
        const bool keeps = events == &forward && up_to(2) == 0;
        (keeps ? backward : *events).push_back({EventKind::free, index});
      }
    }
  }

  std::mt19937_64 random_;
  Program program_;
  std::vector<std::int64_t> sizes_;
  std::vector<step::Phase> end_;
};

TEST(Prompter, RecallsWhatWouldHaveBeenPlayed) {
  RandomPrograms programs(20261129);
  for (int i = 0; i < kPrograms; ++i) {
    SCOPED_TRACE(i);
    const Program program = programs.next();
    facts::DeviceMemoryConstants device;
    device.gemm_handles = 0;
    Request request;
    request.program = &program;
    request.device = &device;
    const Answer some = replay(request);
    request.expand_all = true;
    const Answer all = replay(request);
    EXPECT_EQ(some.memory.peak_allocated, all.memory.peak_allocated);
    EXPECT_EQ(some.memory.peak_reserved, all.memory.peak_reserved);
    EXPECT_EQ(some.memory.steady_allocated, all.memory.steady_allocated);
    EXPECT_EQ(some.memory.by_category.bytes, all.memory.by_category.bytes);
    EXPECT_EQ(some.memory.peak_at.layer, all.memory.peak_at.layer);
    EXPECT_EQ(some.memory.peak_at.phase, all.memory.peak_at.phase);
  }
}

}  // namespace
}  // namespace steelyard::vram
