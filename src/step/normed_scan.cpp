// Mamba-1 with norms between its kernels (transformers 4.57: modeling_jamba.py,
// JambaMambaMixer.cuda_kernels_forward): causal_conv1d_fn keeps its input; selective_scan_fn
// (mamba_ssm/ops/selective_scan_interface.py, SelectiveScanFn) copies what does not lie channel by
// channel and keeps the copies, its result and the states between pieces of 2048 tokens.
#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "step/primitives.h"
#include "step/primitives_generic.h"
#include "step/primitives_image.h"
#include "step/state_scan.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

constexpr std::int64_t kPiece = 2048;
constexpr double kForward = 7.0, kBackward = 21.0;  // as in selective_scan.cpp

struct Weights {
  Tensor conv, conv_bias, x_proj, dt_proj, dt_bias, a_log, d, out_proj, out_bias;
  Tensor dt_norm, b_norm, c_norm;
};

// In the order of BlockBuilder::selective_scan; both biases may lack.
Weights weights_of(const OperatorCall& call, std::int64_t inner) {
  const std::vector<Tensor>& all = call.weights;
  std::size_t next = 0;
  Weights w;
  w.conv = all[next++];
  if (all[next].numel == inner) w.conv_bias = all[next++];
  w.x_proj = all[next++];
  w.dt_proj = all[next++];
  w.dt_bias = all[next++];
  w.a_log = all[next++];
  w.d = all[next++];
  w.out_proj = all[next++];
  if (all.size() - next > 3) w.out_bias = all[next++];
  w.dt_norm = all[next++];
  w.b_norm = all[next++];
  w.c_norm = all[next++];
  return w;
}

// JambaRMSNorm.forward
Tensor normed(Tape& tape, const Tensor& x, const Tensor& weight) {
  Tensor wide = to(tape, x, DType::fp32);
  const Tensor variance = mean(tape, pow(tape, wide), weight.numel);
  wide = mul(tape, wide, rsqrt(tape, add_constant(tape, variance)));
  return mul(tape, weight, to(tape, std::move(wide), x.dtype));
}

struct ScanInputs {
  Tensor u, delta, a, b, c, d, z;
  Tensor bias;  // of delta, from outside of autograd
  std::int64_t state = 1, pieces = 1;
};

void recurrence(Tape& t, std::int64_t channels, std::int64_t state, DType dtype, double operations,
                std::string_view name) {
  t.work(WorkKind::memory, name, DType::fp32,
         Flops(operations * static_cast<double>(channels) * static_cast<double>(state)),
         5 * bytes_of(channels, dtype));
}

Tensor scan(Tape& tape, const ScanInputs& in) {
  tape.begin_operation(OperationKind::other, {&in.u, &in.delta, &in.z});
  const std::int64_t channels = in.u.numel;
  const std::int64_t state = in.state;
  const DType dtype = in.u.dtype;
  const Tensor out = tape.allocate(channels, dtype, "selective_scan");
  const Tensor pieces = tape.allocate(in.pieces, DType::fp32, "selective_scan");
  Tensor y = tape.allocate(channels, dtype, "selective_scan");
  recurrence(tape, channels, state, dtype, kForward, "selective_scan");
  std::vector<Edge> edges;
  std::vector<StorageRef> saved = {out.storage, pieces.storage, in.bias.storage};
  std::vector<std::pair<std::int64_t, DType>> sizes;
  for (const Tensor* each : {&in.u, &in.delta, &in.a, &in.b, &in.c, &in.d, &in.z}) {
    edges.push_back(Tape::edge_of(*each));
    saved.push_back(each->storage);
    sizes.emplace_back(each->numel, each->dtype);
  }
  tape.track(y, "selective_scan", std::move(edges), std::move(saved),
             [=](Tape& t, const Gradients&) {
               Gradients result;
               for (const auto& [numel, type] : sizes) {
                 result.push_back(t.allocate(numel, type, "selective_scan_gradient"));
               }
               recurrence(t, channels, state, dtype, kBackward, "selective_scan_gradient");
               return result;
             });
  return y;
}

// A copy that lies channel by channel.
Tensor by_channel(Tape& tape, Tensor x) {
  return contiguous(tape, view(std::move(x), false));
}

}  // namespace

Tensor causal_conv1d(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  tape.begin_operation(OperationKind::other, {&x});
  Tensor y = tape.allocate(x.numel, x.dtype, "causal_conv1d");
  tape.pointwise("causal_conv1d", 2 * bytes_of(y));
  std::vector<Edge> edges = {Tape::edge_of(x), Tape::edge_of(weight)};
  std::vector<std::int64_t> numels = {weight.numel};
  if (bias) {
    edges.push_back(Tape::edge_of(bias));
    numels.push_back(bias.numel);
  }
  const DType dtype = weight.dtype;
  tape.track(y, "causal_conv1d", std::move(edges), {x.storage, weight.storage},
             [numels, dtype](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Gradients result = {t.allocate(dy.numel, dy.dtype, "causal_conv1d_gradient")};
               for (const std::int64_t numel : numels) {
                 result.push_back(t.allocate(numel, dtype, "causal_conv1d_gradient"));
               }
               t.pointwise("causal_conv1d_gradient", 3 * bytes_of(dy));
               return result;
             });
  return y;
}

Tensor normed_selective_scan(Tape& tape, const OperatorCall& call) {
  const model::ScanShape& shape = call.op->scan;
  const std::int64_t inner = shape.channels();
  const std::int64_t state = shape.state;
  const std::int64_t rank = shape.time_rank;
  const std::int64_t batch = call.input_shapes[0].at(0);
  const std::int64_t tokens = call.input_shapes[0].at(1);
  const std::int64_t rows = checked_multiply(batch, tokens);
  const Weights w = weights_of(call, inner);
  const std::vector<Tensor> halves =
      split(tape, to_compute(tape, call.inputs[0]), {rows * inner, rows * inner});
  const Tensor x = causal_conv1d(tape, halves[0], w.conv, w.conv_bias);
  const Tensor small = linear(tape, x, w.x_proj, Tensor(), inner, rank + 2 * state);
  const std::vector<Tensor> parts = split(tape, small, {rows * rank, rows * state, rows * state});
  const Tensor steps = normed(tape, parts[0], w.dt_norm);
  ScanInputs in;
  in.b = by_channel(tape, normed(tape, parts[1], w.b_norm));
  in.c = by_channel(tape, normed(tape, parts[2], w.c_norm));
  in.delta = by_channel(tape, linear(tape, steps, w.dt_proj, w.dt_bias, rank, inner));
  // -torch.exp(A_log.float())
  const Outcome wide{.numel = w.a_log.numel, .dtype = DType::fp32};
  in.a =
      mul_constant(tape, unary(tape, to(tape, w.a_log, DType::fp32), model::Saves::output, wide));
  in.bias = w.dt_bias;
  in.bias.requires_grad = false;
  in.bias = to(tape, in.bias, DType::fp32);
  in.d = to(tape, w.d, DType::fp32);
  in.u = by_channel(tape, x);
  in.z = by_channel(tape, halves[1]);
  in.state = state;
  in.pieces = batch * inner * ceil_divide(tokens, kPiece) * 2 * state;
  Tensor y = scan(tape, in);
  if (batch > 1) y = by_channel(tape, std::move(y));  // back to token by token, for the product
  return linear(tape, y, w.out_proj, w.out_bias, inner, call.output_shapes[0].back());
}

}  // namespace steelyard::step
