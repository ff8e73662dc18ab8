// What products in fp8 hold of the weights between micro-batches: Transformer Engine's workspaces
// (module/base.py, quantize_weight with cache=True) and the transposes of weights that are held in
// fp8 themselves (tensor/float8_tensor.py, update_usage).
#include <utility>

#include "step/assembler.h"
#include "step/fp8_casts.h"
#include "step/weight_storage.h"

namespace steelyard::step {

void Assembler::add_fp8_casts() {
  const Fp8& fp8 = layout_.arithmetic.fp8;
  if (fp8.library != Fp8Library::transformer_engine) return;
  const bool rows = fp8.caches_weights && !fp8.short_weights;
  const bool columns = fp8.two_layouts && (rows || fp8.short_weights);
  if (!rows && !columns) return;
  Phase phase{PhaseKind::setup, {}};
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    body.layer = segment.blocks.front().name;
    body.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!weight.fp8) continue;
        const Bytes bytes =
            fp8_layout_bytes(fp8.scaling, model::elements(weight.shape), weight.shape.back(), true);
        for (const bool wanted : {rows, columns}) {
          if (!wanted) continue;
          allocate(body.events, slot(bytes, facts::VramCategory::parameters, "fp8 weight"));
        }
      }
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
  if (!phase.bodies.empty()) program_.setup.push_back({1, {std::move(phase)}});
}

}  // namespace steelyard::step
