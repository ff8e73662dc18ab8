// The step as spans of a timeline. What repeats is drawn once in full at its begin and at its end,
// with one span for all between them.
#pragma once

#include <string>
#include <vector>

#include "facts/pace_why.h"
#include "pace/pieces.h"
#include "pace/walk.h"
#include "step/program.h"

namespace steelyard::pace {

// Every time is multiplied by `stretch`.
[[nodiscard]] std::vector<facts::PaceSpan> spans_of(const step::Program& program,
                                                    const Prices& prices, Seconds bubble,
                                                    double stretch);

// "layer_norm" of "model.layers: layer_norm".
[[nodiscard]] std::string operation_of(const step::Program& program, const Piece& piece);

}  // namespace steelyard::pace
