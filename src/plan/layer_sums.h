// What the layers of a program take and hold, one by one: floors of plans are made of these.
#pragma once

#include <cstdint>
#include <vector>

#include "base/quantity.h"
#include "model/graph.h"
#include "pace/walk.h"
#include "step/program.h"

namespace steelyard::plan {

struct LayerSums {
  // False: the program's bodies do not stand for the graph's layers one by one.
  bool known = false;
  bool alike = false;  // one kind of layer
  bool tied = false;   // weights of one end are the other's: apart, the ends do less
  std::int64_t layers = 0;
  // Of the layer that takes or holds least.
  Seconds passes;   // forward and backward of one micro-batch
  Bytes saved;      // between its forward and its backward, of one micro-batch
  Bytes offloaded;  // of what it saves, what waits on the host
  Bytes held;       // parameters, optimizer states and what else setup makes and nothing frees
  Bytes gradients;  // that backward makes and keeps
  Bytes reduced;    // what replicas sum up of it after the last micro-batch
  // As `held` and `reduced`, of the model's first end.
  Bytes first_held, first_reduced;
  // Arithmetic of a micro-batch, forward and backward: of a layer, of the model's two ends.
  double flops = 0.0, first_flops = 0.0, last_flops = 0.0;
  Seconds first, last;    // passes of the two ends
  Seconds last_products;  // of the last one's: what it does apart from the first one too
  // Of an element of the buffers that setup makes of all parameters, of all gradients; 0: none.
  std::int64_t parameter_width = 0, gradient_width = 0;
};

// Of a program with all layers on one rank. `prices`: of that program; none: no times. Collectives
// of more than `ranks` ranks are not counted. `late`: the layout reduces gradients behind its last
// micro-batch, whatever the program does, so nothing that may be that is counted in backward.
[[nodiscard]] LayerSums layer_sums(const model::Graph& graph, const step::Program& program,
                                   const pace::Prices* prices, std::int64_t ranks,
                                   bool late = false);

}  // namespace steelyard::plan
