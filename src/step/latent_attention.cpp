#include "step/latent_attention.h"

#include <utility>

#include "step/primitives.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

// _apply_rotary_pos_emb_bshd of interleaved pairs: set apart, turned, put behind one another.
Tensor turned(Tape& tape, const Tensor& x, std::int64_t table) {
  Tensor pairs = cat(tape, slice(tape, x, x.numel / 2), slice(tape, x, x.numel / 2));
  const Tensor cosine = tape.allocate(table, x.dtype, "cos");
  const Tensor sine = tape.allocate(table, x.dtype, "sin");
  Tensor along = mul(tape, pairs, cosine);
  const Tensor first = slice(tape, pairs, x.numel / 2);
  Tensor second = slice(tape, pairs, x.numel / 2);
  Tensor quarter_turn = cat(tape, mul_constant(tape, std::move(second)), first);
  Tensor across = mul(tape, std::move(quarter_turn), sine);
  Tensor sum = add(tape, std::move(along), std::move(across));
  return contiguous(tape, view(std::move(sum), false));  // cat with the rest, which is empty
}

// modeling_deepseek_v3.py, apply_rotary_pos_emb_interleave: neighbours set apart by a copy, then as
// LLaMA turns; modeling_deepseek_v2.py, apply_rotary_emb: as complex numbers in fp32.
Tensor turned_by_tables(Tape& tape, const OperatorCall& call, const Tensor& x) {
  const Tensor& cosine = call.inputs[3];
  if (call.op->turns_complex) {
    const Tensor wide = to(tape, x, DType::fp32);
    return to(tape, mul(tape, wide, cosine), x.dtype);
  }
  const Tensor pairs = contiguous(tape, view(x, false));
  Tensor along = mul(tape, pairs, cosine);
  Tensor first = slice(tape, pairs, x.numel / 2);
  Tensor second = slice(tape, pairs, x.numel / 2);
  Tensor quarter_turn = cat(tape, mul_constant(tape, std::move(second)), std::move(first));
  Tensor across = mul(tape, std::move(quarter_turn), call.inputs[4]);
  return add(tape, std::move(along), std::move(across));
}

// [B,S,1,r] seen as [B,S,n,r]; the gradients of all heads are summed.
Tensor of_all_heads(Tape& tape, Tensor argument, std::int64_t heads) {
  const Tensor x = std::move(argument);
  Tensor wide = x;
  wide.numel = checked_multiply(x.numel, heads);
  wide.dense = false;
  if (!tape.tracks({&x})) return wide;
  const std::int64_t numel = x.numel;
  tape.track(wide, "expand", {Tape::edge_of(x)}, {}, [numel](Tape& t, const Gradients& gradients) {
    Tensor sum = t.allocate(numel, gradients[0].dtype, "sum");
    t.pointwise("sum", bytes_of(gradients[0]) + bytes_of(sum));
    return Gradients{sum};
  });
  return wide;
}

struct Sizes {
  std::int64_t plain = 0, turning = 0, value = 0;  // elements of all tokens and heads
  std::int64_t table = 0;
  std::int64_t heads = 1;
};

// DeepseekV3Attention.forward: the values stay a view of what holds the keys too.
std::vector<Tensor> by_tables(Tape& tape, const OperatorCall& call, const Sizes& sizes) {
  std::vector<Tensor> query = split(tape, call.inputs[0], {sizes.plain, sizes.turning});
  std::vector<Tensor> rest = split(tape, call.inputs[1], {sizes.plain, sizes.value});
  query[1] = turned_by_tables(tape, call, query[1]);
  Tensor positions = turned_by_tables(tape, call, call.inputs[2]);
  positions = of_all_heads(tape, std::move(positions), sizes.heads);
  Tensor q = cat(tape, std::move(query[0]), std::move(query[1]));
  Tensor k = cat(tape, std::move(rest[0]), std::move(positions));
  return {std::move(q), std::move(k), view(std::move(rest[1]), false)};
}

std::vector<Tensor> separate(Tape& tape, const OperatorCall& call, const Sizes& sizes) {
  std::vector<Tensor> query = split(tape, call.inputs[0], {sizes.plain, sizes.turning});
  std::vector<Tensor> rest = split(tape, call.inputs[1], {sizes.plain, sizes.value});
  query[1] = turned(tape, query[1], sizes.table);
  Tensor positions = turned(tape, call.inputs[2], sizes.table);
  Tensor q = cat(tape, std::move(query[0]), std::move(query[1]));
  positions = of_all_heads(tape, std::move(positions), sizes.heads);
  Tensor k = cat(tape, std::move(rest[0]), std::move(positions));
  return {std::move(q), std::move(k), contiguous(tape, view(std::move(rest[1]), false))};
}

// The query is turned where it lies; keys and values are written apart.
std::vector<Tensor> fused(Tape& tape, const OperatorCall& call, const Sizes& sizes) {
  Tensor q = call.inputs[0];
  const Tensor pairs = call.inputs[1];
  const Tensor positions = call.inputs[2];
  tape.begin_operation();
  tape.pointwise("fused_latent_rotary", 2 * bytes_of(sizes.turning, q.dtype));
  if (tape.tracks({&q})) {
    const Edge before = Tape::edge_of(q);
    tape.track(q, "fused_latent_rotary", {before}, {call.inputs[3].storage},
               [](Tape&, const Gradients& gradients) { return Gradients{gradients[0]}; });
  }
  Tensor k = tape.allocate(sizes.plain + sizes.turning, pairs.dtype, "fused_latent_rotary");
  Tensor v = tape.allocate(sizes.value, pairs.dtype, "fused_latent_rotary");
  tape.pointwise("fused_latent_rotary", bytes_of(pairs) + bytes_of(k) + bytes_of(v));
  if (!tape.tracks({&pairs, &positions})) return {std::move(q), std::move(k), std::move(v)};
  const std::int64_t numels[2] = {pairs.numel, positions.numel};
  const NodeRef node = tape.make_node(
      "fused_latent_rotary", {Tape::edge_of(pairs), Tape::edge_of(positions)},
      {call.inputs[3].storage}, [numels](Tape& t, const Gradients& gradients) {
        Gradients result;
        for (const std::int64_t numel : numels) {
          result.push_back(t.allocate(numel, gradients[0].dtype, "fused_latent_rotary_backward"));
        }
        t.pointwise("fused_latent_rotary_backward", 2 * bytes_of(result[0]));
        return result;
      });
  k.node = v.node = node;
  k.output = 0;
  v.output = 1;
  k.requires_grad = v.requires_grad = true;
  return {std::move(q), std::move(k), std::move(v)};
}

}  // namespace

std::vector<Tensor> latent_heads(Tape& tape, const OperatorCall& call) {
  const model::AttentionShape& shape = call.op->attention;
  Sizes sizes;
  sizes.heads = shape.heads;
  const std::int64_t rows = call.inputs[0].numel / shape.head_dim;  // tokens x heads
  sizes.turning = rows * call.op->rotary_dims;
  sizes.plain = rows * (shape.head_dim - call.op->rotary_dims);
  sizes.value = rows * shape.value_dim;
  sizes.table = call.inputs[2].numel / call.graph->batch;
  if (call.inputs.size() > 4) return by_tables(tape, call, sizes);
  std::vector<Tensor> heads =
      call.variants->fused_latent_rotary ? fused(tape, call, sizes) : separate(tape, call, sizes);
  return heads;
}

}  // namespace steelyard::step
