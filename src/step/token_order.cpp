// torch/distributed/_functional_collectives.py of PyTorch 2.6: a collective works on dimension 0.
// all_gather_tensor joins its chunks along another one, torch.cat(torch.chunk(res, ranks), dim);
// reduce_scatter_tensor does the reverse before it sends. Batch-first tokens are dimension 1, so
// each is copied whole. Megatron-LM's tokens come first: no copy.
#include "step/token_order.h"

#include <utility>

#include "step/primitives.h"
#include "step/variants.h"

namespace steelyard::step {

namespace {

Tensor copied(Tape& tape, const Tensor& x) {
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, x.quantized ? DType::fp8 : x.dtype, "cat");
  tape.pointwise("cat", 2 * bytes_of(y));
  y.dtype = x.dtype;
  y.quantized = x.quantized;
  return y;
}

// In another order, forward and backward. Compiled and asynchronous, products read what is
// gathered and write what is scattered chunk by chunk (torch/_inductor/fx_passes/
// micro_pipeline_tp.py); a sum of several products' gradients is not fused with its scattering.
Tensor in_other_order(Tape& tape, const Tensor& x, bool gathered) {
  const bool fused = tape.options().async_tensor && tape.options().compiled;
  Tensor y = fused ? x : copied(tape, x);
  y.leaf = kNoLeaf;
  if (!tape.tracks({&x})) return y;
  tape.track(y, "cat", {Tape::edge_of(x)}, {},
             [fused, gathered](Tape& t, const std::vector<Tensor>& gradients) {
               const bool sum = gathered && gradients[0].storage->pending;
               if (fused && !sum) return std::vector<Tensor>{gradients[0]};
               return std::vector<Tensor>{copied(t, gradients[0])};
             });
  return y;
}

}  // namespace

Tensor gathered_tokens(Tape& tape, const OperatorCall& call) {
  const bool again = call.variants->gathered_input == GatheredInput::part;
  Tensor all = gather_sequence(tape, call.inputs[0], model::elements(call.output_shapes[0]), again);
  return again ? all : in_other_order(tape, std::exchange(all, Tensor()), true);
}

Tensor scattered_tokens(Tape& tape, const OperatorCall& call) {
  const std::int64_t own = model::elements(call.output_shapes[0]);
  if (call.variants->gathered_input == GatheredInput::part) {
    return scatter_sequence(tape, call.inputs[0], own);
  }
  return scatter_sequence(tape, in_other_order(tape, call.inputs[0], false), own);
}

}  // namespace steelyard::step
