// The gated delta rule behind its projections, as transformers' mixers run it (4.57:
// modeling_qwen3_next.py, Qwen3NextGatedDeltaNet.forward) over flash-linear-attention's kernels
// (fla-core 0.6: ops/gated_delta_rule/chunk.py, ChunkGatedDeltaRuleFunction; ops/common/
// chunk_delta_h.py; modules/norm/fused_norm_gate.py): chunks of 64 tokens are products; queries and
// keys are kept at unit length, the state between the chunks is made again in backward.
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

constexpr std::int64_t kChunk = 64;

struct Delta {
  std::int64_t batch = 1, tokens = 1;
  std::int64_t heads = 1, key_heads = 1, key_dim = 1, value_dim = 1;
  bool joined = true;  // one projection for queries, keys, values and gates
  DType dtype = DType::bf16;

  [[nodiscard]] std::int64_t rows() const { return checked_multiply(batch, tokens); }
  [[nodiscard]] std::int64_t keys() const { return rows() * key_heads * key_dim; }
  [[nodiscard]] std::int64_t values() const { return rows() * heads * value_dim; }
  [[nodiscard]] std::int64_t steps() const { return rows() * heads; }
  [[nodiscard]] std::int64_t many() const { return batch * ceil_divide(tokens, kChunk) * heads; }
  [[nodiscard]] std::int64_t states() const { return many() * key_dim * value_dim; }
};

Delta delta_of(const OperatorCall& call) {
  const model::ScanShape& shape = call.op->scan;
  Delta d;
  d.batch = call.input_shapes[0].at(0);
  d.tokens = call.input_shapes[0].at(1);
  d.heads = shape.heads;
  d.key_heads = shape.groups;
  d.key_dim = shape.state;
  d.value_dim = shape.head_dim;
  d.joined = call.inputs.size() == 2;
  return d;
}

Tensor made(Tape& t, std::int64_t numel, DType dtype, std::string_view name) {
  Tensor tensor = t.allocate(numel, dtype, name);
  t.pointwise(name, bytes_of(tensor));
  return tensor;
}

// reshape() of what does not lie in the order of the new shape.
Tensor copied(Tape& tape, Tensor x) {
  return contiguous(tape, view(std::move(x), false));
}

struct Projected {
  Tensor mixed, gate, b, a;
};

// fix_query_key_value_ordering: the heads' parts are taken apart, queries, keys and values joined.
Projected projected(Tape& tape, const OperatorCall& call, const Delta& d) {
  Projected p;
  if (!d.joined) return {call.inputs[0], call.inputs[1], call.inputs[2], call.inputs[3]};
  const std::vector<Tensor> parts =
      split(tape, to_compute(tape, call.inputs[0]), {d.keys(), d.keys(), d.values(), d.values()});
  const std::vector<Tensor> small =
      split(tape, to_compute(tape, call.inputs[1]), {d.steps(), d.steps()});
  const Tensor value = copied(tape, parts[2]);
  p.gate = copied(tape, parts[3]);
  p.b = copied(tape, small[0]);
  p.a = copied(tape, small[1]);
  std::vector<Tensor> joined = {copied(tape, parts[0]), copied(tape, parts[1]), value};
  p.mixed = cat(tape, std::move(joined));
  return p;
}

// -A_log.float().exp() * F.softplus(a.float() + dt_bias)
Tensor decays(Tape& tape, const Delta& d, const Tensor& a, const Tensor& a_log,
              const Tensor& bias) {
  using model::ArithmeticKind;
  using model::Saves;
  const Outcome wide{.numel = d.steps(), .dtype = DType::fp32};
  const Outcome few{.numel = d.heads, .dtype = DType::fp32};
  Tensor rate = mul_constant(tape, unary(tape, to(tape, a_log, DType::fp32), Saves::output, few));
  Tensor sum = binary(tape, to(tape, a, DType::fp32), bias, ArithmeticKind::add, wide);
  return binary(tape, std::move(rate), unary(tape, std::move(sum), Saves::input, wide),
                ArithmeticKind::multiply, wide);
}

// Products of every chunk of every head.
void products(Tape& t, std::string_view name, const Delta& d, std::int64_t m, std::int64_t n,
              std::int64_t k) {
  t.gemm(name, d.dtype, m, n, k, d.many(), bytes_of(d.many() * (m * k + k * n + m * n), d.dtype));
}

// w and u, of which the states are made.
std::pair<Tensor, Tensor> pairs_of(Tape& t, const Delta& d) {
  Tensor w = t.allocate(d.steps() * d.key_dim, d.dtype, "delta_rule");
  Tensor u = t.allocate(d.values(), d.dtype, "delta_rule");
  products(t, "delta_rule", d, kChunk, d.key_dim, kChunk);
  products(t, "delta_rule", d, kChunk, d.value_dim, kChunk);
  return {std::move(w), std::move(u)};
}

// chunk_gated_delta_rule_fwd_h: the state in front of each chunk, and the values that it corrects.
std::pair<Tensor, Tensor> states_of(Tape& t, const Delta& d) {
  Tensor states = t.allocate(d.states(), d.dtype, "delta_rule");
  Tensor corrected = t.allocate(d.values(), d.dtype, "delta_rule");
  products(t, "delta_rule", d, kChunk, d.value_dim, d.key_dim);
  products(t, "delta_rule", d, d.key_dim, d.value_dim, kChunk);
  return {std::move(states), std::move(corrected)};
}

// chunk_gated_delta_rule_bwd
Gradients chunk_gradients(Tape& t, const Delta& d, const std::vector<DType>& types,
                          std::int64_t keys) {
  std::pair<Tensor, Tensor> pair = pairs_of(t, d);
  const auto [states, corrected] = states_of(t, d);
  pair.second = Tensor();
  Tensor dv = t.allocate(d.values(), d.dtype, "delta_rule_gradient");
  products(t, "delta_rule_gradient", d, kChunk, kChunk, d.key_dim);
  products(t, "delta_rule_gradient", d, kChunk, d.value_dim, kChunk);
  Tensor back = t.allocate(d.states(), d.dtype, "delta_rule_gradient");
  dv = t.allocate(d.values(), d.dtype, "delta_rule_gradient");
  for (int i = 0; i < 3; ++i) {
    products(t, "delta_rule_gradient", d, d.key_dim, d.value_dim, kChunk);
  }
  const std::int64_t wide = d.steps() * d.key_dim;
  Tensor dq = t.allocate(wide, d.dtype, "delta_rule_gradient");
  Tensor dk = t.allocate(wide, d.dtype, "delta_rule_gradient");
  Tensor dw = t.allocate(wide, d.dtype, "delta_rule_gradient");
  Tensor dg = t.allocate(d.steps(), DType::fp32, "delta_rule_gradient");
  for (int i = 0; i < 3; ++i) {
    products(t, "delta_rule_gradient", d, kChunk, d.key_dim, d.value_dim);
    products(t, "delta_rule_gradient", d, kChunk, d.key_dim, kChunk);
  }
  back = Tensor();
  const Tensor further = made(t, wide, d.dtype, "delta_rule_gradient");  // of the keys, by w and u
  Tensor of_values = t.allocate(d.values(), d.dtype, "delta_rule_gradient");
  Tensor of_beta = t.allocate(d.steps(), types[4], "delta_rule_gradient");
  for (int i = 0; i < 2; ++i) {
    products(t, "delta_rule_gradient", d, kChunk, d.key_dim, kChunk);
    products(t, "delta_rule_gradient", d, kChunk, d.value_dim, kChunk);
    products(t, "delta_rule_gradient", d, kChunk, kChunk, kChunk);
  }
  dw = Tensor();
  dg = made(t, d.steps(), DType::fp32, "cumsum");
  dq = made(t, keys, types[0], "l2norm_gradient");
  dk = made(t, keys, types[1], "l2norm_gradient");
  return {std::move(dq), std::move(dk), std::move(of_values), std::move(dg), std::move(of_beta)};
}

// ChunkGatedDeltaRuleFunction.forward; `in`: q, k, v, g, beta.
Tensor chunked(Tape& tape, const Delta& d, std::vector<Tensor> in) {
  tape.begin_operation(OperationKind::other, {&in[0], &in[1], &in[2], &in[3], &in[4]});
  std::vector<StorageRef> saved = {in[4].storage};
  const auto keep = [&](std::int64_t numel, DType dtype, std::string_view name) {
    saved.push_back(made(tape, numel, dtype, name).storage);
  };
  const std::int64_t keys = in[0].numel;
  keep(in[2].numel, d.dtype, "contiguous");
  for (int i = 0; i < 2; ++i) {  // unit lengths of queries and keys, and what they were divided by
    keep(keys, d.dtype, "l2norm");
    keep(keys / d.key_dim, DType::fp32, "l2norm");
  }
  keep(d.steps(), DType::fp32, "cumsum");
  keep(d.steps() * kChunk, d.dtype, "delta_rule");
  products(tape, "delta_rule", d, kChunk, kChunk, d.key_dim);
  products(tape, "delta_rule", d, kChunk, kChunk, kChunk);
  std::pair<Tensor, Tensor> pair = pairs_of(tape, d);
  const auto [states, corrected] = states_of(tape, d);
  Tensor y = tape.allocate(d.values(), d.dtype, "delta_rule");
  products(tape, "delta_rule", d, kChunk, d.value_dim, d.key_dim);
  products(tape, "delta_rule", d, kChunk, kChunk, d.key_dim);
  products(tape, "delta_rule", d, kChunk, d.value_dim, kChunk);
  std::vector<Edge> edges;
  std::vector<DType> types;
  for (const Tensor& each : in) {
    edges.push_back(Tape::edge_of(each));
    types.push_back(each.dtype);
  }
  in.clear();
  tape.track(y, "delta_rule", std::move(edges), std::move(saved),
             [=](Tape& t, const Gradients&) { return chunk_gradients(t, d, types, keys); });
  return y;
}

// LayerNormGatedFunction: keeps what it reads and a number for each head of each token.
Tensor gated_norm(Tape& tape, const Tensor& x, const Tensor& gate, const Tensor& weight) {
  tape.begin_operation(OperationKind::reduction, {&x, &gate, &weight});
  Tensor y = tape.allocate(x.numel, x.dtype, "gated_rms_norm");
  const Tensor roots = tape.allocate(x.numel / weight.numel, DType::fp32, "gated_rms_norm");
  tape.pointwise("gated_rms_norm", 3 * bytes_of(y));
  const std::int64_t numel = weight.numel;
  const DType affine = weight.dtype;
  tape.track(y, "gated_rms_norm", {Tape::edge_of(x), Tape::edge_of(gate), Tape::edge_of(weight)},
             {x.storage, gate.storage, weight.storage, roots.storage},
             [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Gradients result = {t.allocate(dy.numel, dy.dtype, "gated_rms_norm_gradient"),
                                   t.allocate(dy.numel, dy.dtype, "gated_rms_norm_gradient"),
                                   t.allocate(numel, affine, "gated_rms_norm_gradient")};
               t.pointwise("gated_rms_norm_gradient", 5 * bytes_of(dy));
               return result;
             });
  return y;
}

}  // namespace

Tensor delta_rule(Tape& tape, const OperatorCall& call) {
  Delta d = delta_of(call);
  Projected p = projected(tape, call, d);
  d.dtype = p.mixed.dtype;
  const Tensor mixed =
      causal_conv1d(tape, std::exchange(p.mixed, Tensor()), call.weights[0], Tensor());
  std::vector<Tensor> in = split(tape, mixed, {d.keys(), d.keys(), d.values()});
  Tensor beta = sigmoid(tape, std::move(p.b));
  Tensor g = decays(tape, d, p.a, call.weights[2], call.weights[1]);
  if (d.joined && d.heads > d.key_heads) {
    for (int i = 0; i < 2; ++i) in[i] = repeat(tape, in[i], d.heads / d.key_heads);
  }
  in.push_back(std::move(g));
  in.push_back(std::move(beta));
  const Tensor y = chunked(tape, d, std::move(in));
  return gated_norm(tape, y, p.gate, call.weights[3]);
}

}  // namespace steelyard::step
