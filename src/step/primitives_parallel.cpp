// Collectives inside of a layer, as autograd functions (Megatron-LM
// core/tensor_parallel/mappings.py).
#include <utility>

#include "step/fp8_casts.h"
#include "step/primitives.h"
#include "step/primitives_fp8.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

void exchange(Tape& tape, Collective kind, std::string_view name, Bytes payload) {
  tape.communicate(kind, name, payload, tape.options().tensor, tape.options().async_tensor);
}

// Tokens that only linears in fp8 read are cast before they are sent.
Tensor cast_to_travel(Tape& tape, const Tensor& x) {
  return tape.arithmetic().fp8.gathers_tokens() ? fp8_cast(tape, x) : x;
}

Tensor gathered(Tape& tape, const Tensor& part, std::int64_t numel) {
  tape.begin_operation(OperationKind::other, {&part});
  const DType carried = part.quantized ? DType::fp8 : part.dtype;
  // Two values of 4 bits to a byte, and their scales.
  const Fp8Scaling scaling = tape.arithmetic().fp8.scaling;
  const bool packed = part.quantized && scaling == Fp8Scaling::nibble;
  const std::int64_t held = packed ? fp8_layout_bytes(scaling, numel, numel, false).value() : numel;
  Tensor whole = tape.allocate(held, carried, "all_gather_tokens");
  exchange(tape, Collective::all_gather, "all_gather_tokens", bytes_of(whole));
  whole.numel = numel;
  whole.dtype = part.dtype;
  whole.quantized = part.quantized;
  return whole;
}

}  // namespace

Tensor copy_to_ranks(Tape& tape, Tensor x) {
  if (!tape.tracks({&x})) return x;
  Tensor y = x;
  y.leaf = kNoLeaf;
  tape.track(y, "copy_to_ranks", {Tape::edge_of(x)}, {}, [](Tape& t, const Gradients& gradients) {
    exchange(t, Collective::all_reduce, "all_reduce_gradient", bytes_of(gradients[0]));
    return Gradients{gradients[0]};
  });
  return y;
}

Tensor sum_over_ranks(Tape& tape, Tensor x) {
  exchange(tape, Collective::all_reduce, "all_reduce", bytes_of(x));
  return x;
}

Tensor gather_sequence(Tape& tape, Tensor argument, std::int64_t numel, bool regather) {
  const Tensor x = std::move(argument);
  const Tensor sent = cast_to_travel(tape, x);
  Tensor y = gathered(tape, sent, numel);
  if (regather) y.part = sent.storage;
  if (!tape.tracks({&x})) return y;
  const std::int64_t own = x.numel;
  tape.track(
      y, "all_gather_tokens", {Tape::edge_of(x)}, {}, [own](Tape& t, const Gradients& gradients) {
        Tensor dx = t.allocate(own, gradients[0].dtype, "reduce_scatter_tokens");
        exchange(t, Collective::reduce_scatter, "reduce_scatter_tokens", bytes_of(gradients[0]));
        return Gradients{dx};
      });
  return y;
}

Tensor scatter_sequence(Tape& tape, Tensor argument, std::int64_t numel) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::reduce_scatter, {&x});
  Tensor y = tape.allocate(numel, x.dtype, "reduce_scatter_tokens");
  exchange(tape, Collective::reduce_scatter, "reduce_scatter_tokens", bytes_of(x));
  if (!tape.tracks({&x})) return y;
  const std::int64_t all = x.numel;
  tape.track(y, "reduce_scatter_tokens", {Tape::edge_of(x)}, {},
             [all](Tape& t, const Gradients& gradients) {
               return Gradients{gathered(t, cast_to_travel(t, gradients[0]), all)};
             });
  return y;
}

}  // namespace steelyard::step
