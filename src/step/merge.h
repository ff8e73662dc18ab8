// Programs of several models put into one, so that one replay and one walk see all of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "step/program.h"

namespace steelyard::step {

// What another program's slots, names, work and chunks are called in the one it was put into.
class Joined {
 public:
  // Adds what `other` has to `into`, but none of its passes. `label`: before the names of its
  // layers ("reference"); empty: none. `chunks`: how many the phases of `into` have.
  Joined(Program& into, const Program& other, std::string label, std::int32_t chunks);

  [[nodiscard]] Phase phase(const Phase& phase) const;
  [[nodiscard]] Pass pass(const Pass& pass) const;
  [[nodiscard]] Body body(const Body& body) const;

 private:
  std::int32_t slots_, names_, gradients_, work_, communication_, chunks_;
  std::string label_;
};

// How many chunks the program's phases tell apart.
[[nodiscard]] std::int32_t chunks_of(const Program& program);

// A forward pass without gradients as one phase: what it leaves behind is freed at its end.
[[nodiscard]] Phase asked(const Phase& forward, PhaseKind kind);

// The set-up's passes with nothing but parameters in them, a body each.
[[nodiscard]] std::vector<Body> parameters_of(const Program& program);

// The first forward phase of each of the program's chunks, in their order.
[[nodiscard]] std::vector<Phase> forward_phases(const Program& program);

}  // namespace steelyard::step
