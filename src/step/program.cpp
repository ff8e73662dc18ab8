#include "step/program.h"

namespace steelyard::step {

const char* name_of(PhaseKind kind) {
  switch (kind) {
    case PhaseKind::setup: return "setup";
    case PhaseKind::forward: return "forward";
    case PhaseKind::backward: return "backward";
    case PhaseKind::reduction: return "reduction";
    case PhaseKind::clip: return "clip";
    case PhaseKind::optimizer: return "optimizer";
    case PhaseKind::zero_grad: return "zero_grad";
    case PhaseKind::generation: return "generation";
    case PhaseKind::scoring: return "scoring";
  }
  return "setup";
}

}  // namespace steelyard::step
