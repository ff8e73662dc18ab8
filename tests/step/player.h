// Plays a program's allocations and complains of what cannot be: freed twice, never made, left
// over.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "step/small_jobs.h"

namespace steelyard::step {

// (slot, layer and micro-batch) names one allocation.
using Allocation = std::pair<std::int32_t, std::int64_t>;

class Player {
 public:
  explicit Player(const Program& program) : program_(program) {}

  void play(const std::vector<Pass>& passes) {
    progress_ = step::play(
        program_, passes,
        [this](const Event& event, std::int64_t instance) { on(event, instance); },
        [this](std::int32_t slot, std::int64_t instance) {
          return alive_.contains({slot, instance});
        },
        progress_);
    if (carrying_) complain("a tensor was handed to nobody", -1);
  }
  // One step; the first makes the optimizer's states before its optimizer phase.
  void step(bool first) {
    progress_ = {};
    for (const Pass& pass : program_.step) {
      if (std::exchange(first, first && pass.phases.front().kind != PhaseKind::optimizer) &&
          pass.phases.front().kind == PhaseKind::optimizer) {
        play(program_.first_optimizer);
      }
      play({pass});
    }
  }
  [[nodiscard]] const std::set<Allocation>& alive() const { return alive_; }
  [[nodiscard]] const std::string& complaint() const { return complaint_; }

 private:
  void on(const Event& event, std::int64_t instance) {
    const Allocation allocation{event.index, instance};
    switch (event.kind) {
      case EventKind::allocate:
        if (!alive_.insert(allocation).second) complain("allocated twice", event.index);
        break;
      case EventKind::free:
        if (alive_.erase(allocation) == 0) complain("freed but not there", event.index);
        break;
      case EventKind::carry:
        if (alive_.erase(allocation) == 0) complain("carried but not there", event.index);
        if (std::exchange(carrying_, event.index)) complain("two carried at once", event.index);
        break;
      case EventKind::adopt:
        if (!alive_.insert(allocation).second) complain("adopted twice", event.index);
        if (!carrying_) {
          complain("nothing to adopt", event.index);
        } else if (bytes(event.index) != Bytes() &&  // a variable of 0 bytes takes any tensor
                   bytes(*carrying_) != Bytes() &&   // what lies in a buffer has none of its own
                   bytes(*carrying_) != bytes(event.index)) {
          complain("adopted another size", event.index);
        }
        carrying_.reset();
        break;
      default: break;
    }
  }
  [[nodiscard]] Bytes bytes(std::int32_t slot) const {
    return program_.slots[static_cast<std::size_t>(slot)].bytes;
  }
  void complain(const std::string& what, std::int32_t slot) {
    if (!complaint_.empty()) return;
    complaint_ = what;
    if (slot < 0) return;
    const auto name = program_.slots[static_cast<std::size_t>(slot)].name;
    complaint_ += ": " + program_.names[static_cast<std::size_t>(name)] + " (slot " +
                  std::to_string(slot) + ")";
  }

  const Program& program_;
  std::set<Allocation> alive_;
  std::optional<std::int32_t> carrying_;
  std::string complaint_;
  Progress progress_;
};

// What no phase of a step may change: the end of step one, two and three hold the same, and that is
// what was made at the start and with the optimizer's states.
inline void expect_balanced(const Program& program, const std::string& what) {
  Player start(program);
  start.play(program.setup);
  start.play(program.first_optimizer);
  Player steps(program);
  steps.play(program.setup);
  steps.step(true);
  EXPECT_EQ(steps.complaint(), "") << what;
  EXPECT_EQ(steps.alive(), start.alive()) << what;
  steps.step(false);
  steps.step(false);
  EXPECT_EQ(steps.complaint(), "") << what;
  EXPECT_EQ(steps.alive(), start.alive()) << what;
}

}  // namespace steelyard::step
