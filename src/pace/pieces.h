// One iteration of a body as pieces in their order, by the rules of walk.h.
#pragma once

#include <cstdint>
#include <vector>

#include "base/quantity.h"
#include "pace/walk.h"
#include "step/program.h"

namespace steelyard::pace {

struct Piece {
  step::EventKind kind = step::EventKind::work;
  std::int32_t index = 0;  // Program::work or ::communication
  Seconds busy;            // how long it runs
  Seconds step;            // what the iteration is longer for
  bool beside = false;     // it runs beside the work, from the start of the iteration
};

// What runs beside the work of an iteration shares what that adds to it by its own length.
[[nodiscard]] std::vector<Piece> pieces_of(const step::Body& body, const step::Phase& of,
                                           const step::Program& program, const Prices& prices);

[[nodiscard]] Seconds total_of(const std::vector<Piece>& pieces);

}  // namespace steelyard::pace
