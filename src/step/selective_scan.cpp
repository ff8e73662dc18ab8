// Mamba-1 as one autograd function (MambaInnerFn with checkpoint_lvl 1: convolution and time steps
// are made again in backward).
#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "step/primitives.h"
#include "step/state_scan.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

constexpr std::int64_t kPiece = 2048;  // tokens between kept states (selective_scan.cpp, n_chunks)
// Operations per channel, state and token of the recurrence and its read-out; the derivative runs
// the recurrence again and backwards.
constexpr double kForward = 7.0, kBackward = 21.0;

struct Scan {
  std::int64_t batch = 1, tokens = 1, inner = 1, state = 1, rank = 1, width = 1;
  DType dtype = DType::bf16;

  [[nodiscard]] std::int64_t rows() const { return checked_multiply(batch, tokens); }
  [[nodiscard]] std::int64_t channels() const { return checked_multiply(rows(), inner); }
  [[nodiscard]] std::int64_t small() const { return rank + 2 * state; }
  [[nodiscard]] std::int64_t pieces() const {
    return batch * inner * ceil_divide(tokens, kPiece) * 2 * state;
  }
};

Tensor made(Tape& t, std::int64_t numel, DType dtype, std::string_view name, int passes = 1) {
  Tensor tensor = t.allocate(numel, dtype, name);
  t.pointwise(name, passes * bytes_of(tensor));
  return tensor;
}

void product(Tape& t, const Scan& s, std::string_view name, std::int64_t outputs,
             std::int64_t inputs) {
  const std::int64_t moved = s.rows() * (inputs + outputs) + inputs * outputs;
  t.gemm(name, s.dtype, s.rows(), outputs, inputs, 1, bytes_of(moved, s.dtype));
}

// The recurrence runs on the vector units, once over all channels.
void recurrence(Tape& t, const Scan& s, std::string_view name, double operations, int passes) {
  const double flops =
      operations * static_cast<double>(s.channels()) * static_cast<double>(s.state);
  t.work(WorkKind::memory, name, DType::fp32, Flops(flops),
         passes * bytes_of(s.channels(), s.dtype));
}

Tensor time_steps(Tape& t, const Scan& s) {
  Tensor delta = t.allocate(s.channels(), s.dtype, "mm");
  product(t, s, "mm", s.inner, s.rank);
  return delta;
}

Gradients inner_gradient(Tape& t, const Scan& s, const std::vector<Tensor>& weights) {
  const Tensor convolved = made(t, s.channels(), s.dtype, "causal_conv1d", 2);
  const Tensor delta = time_steps(t, s);
  Tensor dx = t.allocate(2 * s.channels(), s.dtype, "empty_like");
  const Tensor arriving = t.allocate(s.channels(), s.dtype, "mm");
  product(t, s, "mm", s.inner, s.width);
  const Tensor of_input = t.allocate(s.channels(), s.dtype, "selective_scan_gradient");
  const Tensor of_steps = t.allocate(s.channels(), s.dtype, "selective_scan_gradient");
  const Tensor of_shared = t.allocate(2 * s.rows() * s.state, DType::fp32, "zeros");
  const Tensor again = t.allocate(s.channels(), s.dtype, "selective_scan_gradient");
  recurrence(t, s, "selective_scan_gradient", kBackward, 8);
  product(t, s, "mm_weight_gradient", s.width, s.inner);
  const Tensor of_small = made(t, s.rows() * s.small(), s.dtype, "empty_like");
  product(t, s, "mm_weight_gradient", s.inner, s.rank);
  product(t, s, "mm", s.rank, s.inner);
  product(t, s, "mm_weight_gradient", s.small(), s.inner);
  product(t, s, "addmm", s.inner, s.small());
  t.pointwise("causal_conv1d_gradient", 3 * bytes_of(of_input));
  Gradients result = {dx};
  for (const Tensor& weight : weights) {
    result.push_back(weight.requires_grad ? t.allocate(weight.numel, weight.dtype, "scan_weight")
                                          : Tensor());
  }
  return result;
}

}  // namespace

Tensor selective_scan(Tape& tape, const OperatorCall& call) {
  const model::ScanShape& shape = call.op->scan;
  Scan s;
  s.batch = call.input_shapes[0].at(0);
  s.tokens = call.input_shapes[0].at(1);
  s.inner = shape.channels();
  s.state = shape.state;
  s.rank = shape.time_rank;
  s.width = call.output_shapes[0].back();
  // The projection's result is read channel by channel: transposed and copied.
  Tensor x = contiguous(tape, view(to_compute(tape, call.inputs[0]), false));
  s.dtype = x.dtype;
  tape.begin_operation(OperationKind::other, {&x});
  std::vector<StorageRef> saved = {x.storage};
  std::vector<Edge> edges = {Tape::edge_of(x)};
  std::vector<Tensor> weights;
  for (const Tensor& weight : call.weights) {
    edges.push_back(Tape::edge_of(weight));
    weights.push_back(weight);
    weights.back().storage.reset();
    // Projections under autocast: copies that the node keeps.
    const bool matrix = weight.numel == s.inner * s.small() || weight.numel == s.inner * s.rank ||
                        weight.numel == s.inner * s.width;
    if (matrix && tape.arithmetic().autocast && weight.dtype != s.dtype) {
      saved.push_back(made(tape, weight.numel, s.dtype, "to", 2).storage);
    }
  }
  Tensor convolved = made(tape, s.channels(), s.dtype, "causal_conv1d", 2);
  const Tensor small = tape.allocate(s.rows() * s.small(), s.dtype, "mm");
  product(tape, s, "mm", s.small(), s.inner);
  Tensor delta = time_steps(tape, s);
  const Tensor shared = made(tape, 2 * s.rows() * s.state, s.dtype, "clone", 2);  // B and C
  const Tensor out = tape.allocate(s.channels(), s.dtype, "selective_scan");
  const Tensor pieces = tape.allocate(s.pieces(), DType::fp32, "selective_scan");
  Tensor gated = tape.allocate(s.channels(), s.dtype, "selective_scan");
  recurrence(tape, s, "selective_scan", kForward, 5);
  convolved = delta = Tensor();
  for (const Tensor* kept : {&small, &shared, &out, &pieces}) saved.push_back(kept->storage);
  Tensor y = tape.allocate(s.rows() * s.width, s.dtype, "mm");
  product(tape, s, "mm", s.width, s.inner);
  gated = Tensor();
  tape.track(y, "selective_scan", std::move(edges), std::move(saved),
             [=](Tape& t, const Gradients&) { return inner_gradient(t, s, weights); });
  return y;
}

}  // namespace steelyard::step
