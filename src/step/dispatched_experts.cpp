// Experts whose tokens are sorted by expert, sent to the ranks that hold them, multiplied in groups
// and sent back (Megatron-LM core/transformer/moe: MoEAlltoAllTokenDispatcher, GroupedMLP; the same
// in torchtitan). A rank receives as many tokens as it sends, times what the job states: the
// imbalance of the fullest rank, and the capacity to which each expert's rows are padded.
#include "step/dispatched_experts.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "step/fused_operators.h"
#include "step/partial_recompute.h"
#include "step/primitives.h"
#include "step/primitives_fp8.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

std::int64_t times(std::int64_t rows, double factor) {
  return checked_round(std::ceil(static_cast<double>(rows) * factor));
}

// Of R ranks that share E experts evenly, how many have one of a token's k, which are drawn at
// random: R (1 - C(E - E/R, k) / C(E, k)).
double ranks_reached(double experts, double ranks, std::int64_t choices) {
  double none = 1.0;
  for (std::int64_t i = 0; i < choices; ++i) {
    const double drawn = static_cast<double>(i);
    none *= std::max(0.0, experts - experts / ranks - drawn) / (experts - drawn);
  }
  return ranks * (1.0 - none);
}

// An exchange of tokens: what each rank sends to the ranks of `group`, and before that to those of
// `between`, one on each node.
struct Exchange {
  Group group;
  Bytes payload;
  bool beside = false;
  std::string_view name = "all_to_all_tokens";
  Group between = {};
  Bytes far = Bytes(0);

  void emit(Tape& tape) const {
    tape.communicate(Collective::all_to_all, "all_to_all_tokens", far, between, beside);
    tape.communicate(Collective::all_to_all, name, payload, group, beside);
  }
};

// Tokens change ranks, `arriving` elements of them; backward the other way.
Tensor all_to_all(Tape& tape, Tensor argument, const Exchange& exchange, std::int64_t arriving) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::other, {&x});
  Tensor y = tape.allocate(arriving, x.dtype, "all_to_all_tokens");
  exchange.emit(tape);
  if (!tape.tracks({&x})) return y;
  const std::int64_t before = x.numel;
  tape.track(y, "all_to_all_tokens", {Tape::edge_of(x)}, {},
             [exchange, before](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(before, gradients[0].dtype, "all_to_all_tokens");
               exchange.emit(t);
               return Gradients{dx};
             });
  return y;
}

// Every choice of a token travels by itself. The fullest rank's side, the larger one, takes
// longest.
Tensor all_to_all(Tape& tape, Tensor argument, bool beside, std::int64_t arriving) {
  if (tape.options().expert.ranks == 1) return argument;
  const Bytes payload = bytes_of(std::max(argument.numel, arriving), argument.dtype);
  return all_to_all(tape, std::move(argument), {tape.options().expert, payload, beside}, arriving);
}

// Chunks of tokens in another order, source rank first or expert first.
Tensor sort_chunks(Tape& tape, Tensor argument) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, x.dtype, "sort_chunks");
  tape.pointwise("sort_chunks", 2 * bytes_of(y));
  if (!tape.tracks({&x})) return y;
  tape.track(y, "sort_chunks", {Tape::edge_of(x)}, {}, [](Tape& t, const Gradients& gradients) {
    Tensor dx = t.allocate(gradients[0].numel, gradients[0].dtype, "sort_chunks");
    t.pointwise("sort_chunks", 2 * bytes_of(dx));
    return Gradients{dx};
  });
  return y;
}

// The tokens of all ranks that split an expert's features, or the sum over those ranks.
Tensor exchange_features(Tape& tape, Tensor argument, bool gather) {
  const std::int64_t ranks = tape.options().expert_tensor.ranks;
  if (ranks == 1) return argument;
  const Tensor x = std::move(argument);
  const std::int64_t before = x.numel;
  const std::int64_t after = gather ? checked_multiply(before, ranks) : before / ranks;
  const auto exchange = [](Tape& t, bool gathers, Bytes payload) {
    t.communicate(gathers ? Collective::all_gather : Collective::reduce_scatter,
                  gathers ? "all_gather_expert_tokens" : "reduce_scatter_expert_tokens", payload,
                  t.options().expert_tensor, false);
  };
  tape.begin_operation(OperationKind::other, {&x});
  Tensor y = tape.allocate(after, x.dtype, "expert_tensor_tokens");
  exchange(tape, gather, bytes_of(gather ? y : x));
  if (!tape.tracks({&x})) return y;
  tape.track(y, "expert_tensor_tokens", {Tape::edge_of(x)}, {},
             [=](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(before, gradients[0].dtype, "expert_tensor_tokens");
               exchange(t, !gather, bytes_of(gather ? gradients[0] : dx));
               return Gradients{dx};
             });
  return y;
}

// Rows grouped by expert times each expert's matrix: one input, one result, a weight gradient each.
// `experts` of them in one weight, where that is less than one for each.
Tensor grouped_linear(Tape& tape, const Tensor& x, const std::vector<Tensor>& weights,
                      std::int64_t inputs, std::int64_t outputs, std::int64_t experts = 0,
                      FusedCasts fused = {}) {
  const Fp8Library library = tape.arithmetic().fp8.library;
  if (library == Fp8Library::transformer_engine && fits_fp8(inputs, outputs) && experts == 0) {
    return fp8_grouped_linear(tape, x, weights, inputs, outputs, fused);
  }
  const Tensor a = to_compute(tape, x);
  const std::int64_t rows = a.numel / inputs;
  const auto held = static_cast<std::int64_t>(weights.size());
  const std::int64_t count = experts > 0 ? experts : held;
  const std::int64_t each = ceil_divide(rows, count);
  std::vector<Tensor> used;
  std::vector<Edge> edges = {Tape::edge_of(a)};
  std::vector<StorageRef> saved = {a.storage};
  bool wants_weights = false;
  for (const Tensor& weight : weights) {
    const bool cast = tape.arithmetic().autocast && weight.dtype != tape.arithmetic().compute;
    used.push_back(cast ? tape.cast_weight(weight) : weight);
    edges.push_back(Tape::edge_of(used.back()));
    saved.push_back(used.back().storage);
    wants_weights = wants_weights || weight.requires_grad;
  }
  tape.begin_operation(OperationKind::mm, {&a});
  Tensor y = tape.allocate(checked_multiply(rows, outputs), a.dtype, "grouped_mm");
  const Bytes traffic = bytes_of(a) + bytes_of(y) + bytes_of(count * inputs * outputs, a.dtype);
  tape.gemm("grouped_mm", a.dtype, each, outputs, inputs, count, traffic);
  if (!wants_weights && !tape.tracks({&a})) return y;
  const bool wants_x = a.requires_grad;
  tape.track(y, "grouped_mm", std::move(edges), std::move(saved),
             [=](Tape& t, const Gradients& gradients) {
               const DType dtype = gradients[0].dtype;
               Gradients result(static_cast<std::size_t>(held) + 1);
               if (wants_x) {
                 result[0] = t.allocate(rows * inputs, dtype, "grouped_mm_input_gradient");
                 t.gemm("grouped_mm_input_gradient", dtype, each, inputs, outputs, count, traffic);
               }
               if (wants_weights) {
                 for (std::int64_t i = 0; i < held; ++i) {
                   result[static_cast<std::size_t>(i) + 1] = t.allocate(
                       inputs * outputs * (count / held), dtype, "grouped_mm_weight_gradient");
                 }
                 const Bytes added = added_traffic(t, count * inputs * outputs, dtype);
                 t.gemm("grouped_mm_weight_gradient", dtype, outputs, inputs, each, count,
                        traffic + added);
               }
               return result;
             });
  return y;
}

// zeros.scatter_add(rows, source) saves the rows only; index_add, the deterministic form, the
// source besides.
Tensor scatter_add(Tape& tape, Tensor argument, const Tensor& rows, std::int64_t numel,
                   bool saves_source) {
  const Tensor source = std::move(argument);
  tape.begin_operation(OperationKind::other, {&source});
  Tensor y = tape.allocate(numel, source.dtype, "unpermute");
  tape.pointwise("unpermute", 2 * bytes_of(source) + bytes_of(y));
  if (!tape.tracks({&source})) return y;
  const std::int64_t all = source.numel;
  std::vector<StorageRef> saved = {rows.storage};
  if (saves_source) saved.push_back(source.storage);
  tape.track(y, "unpermute", {Tape::edge_of(source)}, std::move(saved),
             [all](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(all, gradients[0].dtype, "unpermute_backward");
               t.pointwise("unpermute_backward", 2 * bytes_of(dx));
               return Gradients{dx};
             });
  return y;
}

// The n-th matrix of every expert.
std::vector<Tensor> matrices(const OperatorCall& call, std::size_t n, std::size_t per_expert) {
  std::vector<Tensor> own;
  for (std::size_t i = n; i < call.weights.size(); i += per_expert) own.push_back(call.weights[i]);
  return own;
}

// Each token's features times the weight of the expert that it chose.
Tensor weighted(Tape& tape, const OperatorCall& call, Tensor h, std::int64_t tokens) {
  const Tensor& routing = call.inputs[1];
  const Tensor order = tape.allocate(tokens, DType::int64, "sorted_indices");
  const DType dtype = h.dtype;
  return to(tape, mul(tape, std::move(h), index(tape, routing, {order}, tokens)), dtype);
}

// What lies between an expert's two matrices.
Tensor inner_activation(Tape& tape, const OperatorCall& call, Tensor h, bool gated,
                        std::int64_t tokens, std::int64_t features) {
  if (call.variants->fused_activation) {
    return bias_activation(tape, std::move(h), Tensor(), features, gated,
                           call.variants->fused_expert_mlp);
  }
  if (gated) {
    const std::vector<Tensor> halves = split(tape, h, {h.numel / 2, h.numel / 2});
    h = Tensor();
    h = mul(tape, activation(tape, call.op->activation, halves[0]), halves[1]);
  } else {
    h = activation(tape, call.op->activation, std::move(h));
  }
  if (call.variants->inner_probabilities) h = weighted(tape, call, std::move(h), tokens);
  return h;
}

// The same with weights that hold the matrices of all experts, perhaps biases behind each.
Tensor stacked_feed_forward(Tape& tape, const OperatorCall& call, Tensor rows,
                            std::int64_t hidden) {
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t held = mixture.experts / mixture.ranks;
  const std::int64_t wide = mixture.intermediate / mixture.feature_ranks;
  const auto product = [&](const Tensor& x, std::size_t weight, std::int64_t inputs,
                           std::int64_t outputs) {
    return grouped_linear(tape, x, {call.weights[weight]}, inputs, outputs, held);
  };
  if (mixture.code == model::ExpertCode::chunked) {  // gate, up, down
    Tensor gate = product(rows, 0, hidden, wide);
    gate = activation(tape, call.op->activation, std::move(gate));
    const Tensor up = product(rows, 1, hidden, wide);
    rows = Tensor();
    return product(mul(tape, std::move(gate), up), 2, wide, hidden);
  }
  const bool biased = call.weights.size() > 2;
  const std::int64_t tokens = rows.numel / hidden;
  Tensor h = product(rows, 0, hidden, 2 * wide);
  rows = Tensor();
  if (biased) h = add(tape, std::move(h), call.weights[1]);
  h = inner_activation(tape, call, std::move(h), true, tokens, 2 * wide);
  h = product(h, biased ? 2 : 1, wide, hidden);
  return biased ? add(tape, std::move(h), call.weights[3]) : h;
}

// TEGroupedMLP._apply_bias: cat([t + b * p for t, b, p of each expert]).to(dtype), where the
// probabilities p, and so the products and sums, are fp32.
Tensor biased_results(Tape& tape, Tensor argument, std::int64_t experts) {
  const Tensor x = std::move(argument);
  const std::int64_t numel = x.numel;
  const Bytes wide = bytes_of(numel, DType::fp32);
  const auto of_each = [experts](Tape& t, const Bytes& traffic) {
    const Bytes each(traffic.value() / experts);
    for (std::int64_t i = 0; i < experts; ++i) t.pointwise("expert_bias", each);
  };
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor sums = tape.allocate(numel, DType::fp32, "expert_bias");
  of_each(tape, wide);                    // b * p
  of_each(tape, bytes_of(x) + 2 * wide);  // t + that
  Tensor joined = tape.allocate(numel, DType::fp32, "expert_bias");
  tape.pointwise("cat", 2 * wide);
  sums = Tensor();
  Tensor y = tape.allocate(numel, x.dtype, "expert_bias");
  tape.pointwise("to", wide + bytes_of(y));
  joined = Tensor();
  if (!tape.tracks({&x})) return y;
  tape.track(y, "expert_bias", {Tape::edge_of(x)}, {}, [=](Tape& t, const Gradients& gradients) {
    const Tensor& dy = gradients[0];
    const Tensor grown = t.allocate(numel, DType::fp32, "expert_bias");
    t.pointwise("to", wide + bytes_of(dy));
    Tensor dx = t.allocate(numel, dy.dtype, "expert_bias");
    of_each(t, wide + bytes_of(dx));        // of t
    for (int side = 0; side < 2; ++side) {  // of b, summed over its rows, and of p, over features
      of_each(t, 2 * wide);
      of_each(t, wide);
    }
    return Gradients{dx};
  });
  return y;
}

// Rows through the experts of this rank: gate and up (apart or in one matrix), or one matrix alone.
Tensor products_of(Tape& tape, const OperatorCall& call, Tensor rows, std::int64_t hidden) {
  const model::MixtureShape& mixture = call.op->mixture;
  if (mixture.stacked()) return stacked_feed_forward(tape, call, std::move(rows), hidden);
  const auto held = static_cast<std::size_t>(mixture.experts / mixture.ranks);
  const std::size_t per_expert = call.weights.size() / held;
  const std::int64_t wide = mixture.intermediate / mixture.feature_ranks;
  if (per_expert == 3) {  // w1, w2, w3
    Tensor gate = grouped_linear(tape, rows, matrices(call, 0, 3), hidden, wide);
    gate = activation(tape, call.op->activation, gate);
    Tensor up = grouped_linear(tape, rows, matrices(call, 2, 3), hidden, wide);
    rows = Tensor();
    Tensor h = mul(tape, std::move(gate), std::move(up));
    return grouped_linear(tape, h, matrices(call, 1, 3), wide, hidden);
  }
  const std::int64_t first = call.weights[0].numel / hidden;  // features, perhaps gate and up
  const bool gated = first == 2 * wide;
  const std::int64_t tokens = rows.numel / hidden;
  // transformer_engine/pytorch/ops/fused: grouped products whose kernels apply the activation and
  // cast what they write, forward and backward.
  const bool fused = call.variants->fused_expert_mlp;
  Tensor h = grouped_linear(tape, rows, matrices(call, 0, 2), hidden, first, 0, {false, fused});
  rows = Tensor();
  if (!call.recomputes_activation) {
    h = inner_activation(tape, call, std::move(h), gated, tokens, first);
    return grouped_linear(tape, h, matrices(call, 1, 2), wide, hidden, 0, {fused, false});
  }
  OperatorCall apart = call;
  apart.inputs.clear();  // the part gets what it reads
  const Part act = [=](Tape& t, const std::vector<Tensor>& inputs) {
    OperatorCall now = apart;
    now.inputs = {Tensor(), inputs[1]};
    return std::vector<Tensor>{inner_activation(t, now, inputs[0], gated, tokens, first)};
  };
  DiscardedPart again(tape, {std::exchange(h, Tensor()), call.inputs[1]}, act);
  Tensor y = grouped_linear(tape, again.outputs()[0], matrices(call, 1, 2), wide, hidden);
  again.discard(tape, y);
  return y;
}

// The fused products add biases themselves.
Tensor feed_forward(Tape& tape, const OperatorCall& call, Tensor rows, std::int64_t hidden) {
  const model::MixtureShape& mixture = call.op->mixture;
  Tensor y = products_of(tape, call, std::move(rows), hidden);
  if (!call.variants->adds_expert_bias || call.variants->fused_expert_mlp) return y;
  return biased_results(tape, std::move(y), mixture.experts / mixture.ranks);
}

// Tokens go once to each rank that has experts of theirs; there they are put into the experts'
// order, and what the experts of a rank make of one token is added up before it goes back
// (Megatron-LM core/transformer/moe/fused_a2a.py over DeepEP and HybridEP). Between nodes a token
// travels once, and a rank of the other node hands it on.
Tensor sent_once(Tape& tape, const OperatorCall& call, const Tensor& order) {
  const Tensor& x = call.inputs[0];
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  const std::int64_t choices = call.inputs[1].numel;
  const double imbalance = tape.options().expert_imbalance;
  const std::int64_t received = times(choices, tape.options().expert_capacity * imbalance);
  const Group& group = tape.options().expert;
  const double experts = static_cast<double>(mixture.experts);
  const double ranks = static_cast<double>(group.ranks);
  const double per_node =
      static_cast<double>(std::clamp(group.ranks_per_node, std::int64_t{1}, group.ranks));
  const std::int64_t each = std::max<std::int64_t>(choices * hidden / x.numel, 1);
  const double reached = ranks_reached(experts, ranks, each);
  const double tokens = static_cast<double>(x.numel / hidden);
  const auto sent = [&](double often) {
    return bytes_of(static_cast<std::int64_t>(tokens * imbalance * often) * hidden, x.dtype);
  };
  Exchange exchange{group, sent(reached), call.variants->sends_beside, "tokens_to_ranks"};
  if (ranks > per_node) {  // what one node's ranks get of a token is handed on by one of them
    const auto on_node = static_cast<std::int64_t>(per_node);
    const double nodes = ranks / per_node;
    exchange.group = {on_node, on_node};
    exchange.between = {group.ranks / on_node, 1};
    exchange.far = sent(ranks_reached(experts, nodes, each));
  }
  const std::int64_t arriving = static_cast<std::int64_t>(tokens * imbalance * reached) * hidden;
  Tensor rows = all_to_all(tape, x, exchange, arriving);
  rows = index(tape, rows, {order}, checked_multiply(received, hidden));
  rows = exchange_features(tape, std::move(rows), true);
  rows = feed_forward(tape, call, std::move(rows), hidden);
  rows = exchange_features(tape, std::move(rows), false);
  rows = scatter_add(tape, to(tape, std::move(rows), x.dtype), order, arriving,
                     call.variants->adds_by_index);
  return all_to_all(tape, std::move(rows), exchange, x.numel);
}

}  // namespace

Tensor dispatched_experts(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const Tensor& routing = call.inputs[1];  // weights of the chosen experts, [T,k]
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  const std::int64_t choices = times(routing.numel, tape.options().expert_capacity);
  const std::int64_t sent = checked_multiply(choices, hidden);
  const std::int64_t received =
      checked_multiply(times(choices, tape.options().expert_imbalance), hidden);
  const bool sorts = mixture.experts / mixture.ranks > 1 && mixture.ranks > 1;
  const bool beside = call.variants->sends_beside;
  const Tensor order = tape.allocate(choices, DType::int64, "sorted_indices");
  if (call.variants->counts_on_host) {
    tape.pointwise("counts_to_host", 2 * bytes_of(mixture.experts, DType::int64));
  }
  const bool inner = call.variants->inner_probabilities;
  if (call.variants->sends_once && inner && tape.options().expert.ranks > 1) {
    return sent_once(tape, call, order);
  }
  Tensor rows = index(tape, x, {order}, sent);
  rows = all_to_all(tape, std::move(rows), beside, received);
  if (sorts) rows = sort_chunks(tape, std::move(rows));
  rows = exchange_features(tape, std::move(rows), true);
  rows = feed_forward(tape, call, std::move(rows), hidden);
  rows = exchange_features(tape, std::move(rows), false);
  if (sorts) rows = sort_chunks(tape, std::move(rows));
  rows = all_to_all(tape, std::move(rows), beside, sent);
  if (!inner) rows = mul(tape, std::move(rows), index(tape, routing, {order}, choices));
  return scatter_add(tape, to(tape, std::move(rows), x.dtype), order, x.numel,
                     call.variants->adds_by_index);
}

}  // namespace steelyard::step
