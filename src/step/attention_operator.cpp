#include "step/attention_operator.h"

#include <algorithm>
#include <utility>

#include "step/context_parallel.h"
#include "step/fused_operators.h"
#include "step/partial_recompute.h"
#include "step/primitives.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

// The model's own code writes products and softmax out, whatever the job asks for.
bool has_no_kernel(const OperatorCall& call) {
  return call.op->attention.learned_bias || call.op->attention.always_eager;
}

// The products and the softmax written out, not a kernel.
bool runs_own_code(const OperatorCall& call) {
  return call.variants->attention == AttentionKernel::math || has_no_kernel(call);
}

AttentionDims dims_of(const OperatorCall& call) {
  const model::AttentionShape& shape = call.op->attention;
  AttentionDims dims;
  // The batch, or its windows, of which there are more.
  dims.samples = call.input_shapes[0].front();
  dims.heads = shape.heads;
  dims.kv_heads = shape.kv_heads;
  dims.head_dim = shape.head_dim;
  dims.value_dim = shape.value_dim;
  dims.queries = call.inputs[0].numel / (dims.samples * dims.heads * dims.head_dim);
  dims.context = shape.context;
  dims.keys = call.inputs[1].numel / (dims.samples * dims.kv_heads * dims.head_dim) * dims.context;
  if (shape.packed > 0 && !runs_own_code(call)) {
    // flash_attn_varlen_func: each sequence of the row by itself.
    dims.samples *= shape.packed;
    dims.queries /= shape.packed;
    dims.keys /= shape.packed;
  }
  if (shape.causal) {
    // A causal kernel skips half of the scores; a window of w keeps about w of each row, and of the
    // first or last of 128 rows, which a block computes together, those of the others too.
    constexpr double kRowsOfABlock = 128.0;
    const double window =
        shape.window > 0 ? static_cast<double>(shape.window) + kRowsOfABlock : 1e300;
    const double keys = static_cast<double>(dims.keys);
    const double chunk = static_cast<double>(shape.chunk);
    dims.whole_share = 0.5;
    dims.computed_share = window >= keys ? 0.5 : (window / keys) * (1.0 - 0.5 * window / keys);
    if (shape.chunk > 0 && chunk < keys) dims.computed_share = 0.5 * chunk / keys;
  }
  return dims;
}

struct Heads {
  Tensor q, k, v;
};

// Scores from the product on: masking, softmax and what else the model's own code does.
Tensor probabilities(Tape& tape, const OperatorCall& call, Tensor scores, std::int64_t keys,
                     DType query_type, DType value_type) {
  const model::AttentionShape& shape = call.op->attention;
  if (shape.softcap > 0.0) {
    scores = mul_constant(tape, std::move(scores));
    scores = tanh(tape, std::move(scores));
    scores = mul_constant(tape, std::move(scores));
  }
  if (shape.learned_bias) {
    scores = add_in_place(tape, std::move(scores), call.inputs[3]);
    scores = to(tape, std::move(scores), DType::fp32);  // scores.float()
  } else if (shape.causal && shape.masks_by_where) {
    // torch.full([], finfo.min, device=...): a tensor of one element
    const Tensor least = tape.allocate(1, scores.dtype, "full");
    scores = where(tape, call.mask, std::move(scores));
  } else if (shape.causal) {
    scores = add(tape, std::move(scores), call.mask);
  } else if (shape.packed > 0) {
    // torch.full([1, S, S], min), zeros where a sequence reads itself; in each layer anew
    const Tensor mask = tape.allocate(scores.numel / shape.heads, scores.dtype, "full");
    scores = add(tape, std::move(scores), mask);
  } else if (shape.bias) {
    scores = add(tape, std::move(scores), call.inputs[3]);
    // The mask of shifted windows, a buffer of the module.
    if (shape.padding_mask) scores = add_constant(tape, std::move(scores));
  } else if (shape.padding_mask) {
    scores = add(tape, std::move(scores), call.inputs[3]);
  }
  const bool wide = shape.softmax_in_fp32 || shape.learned_bias || tape.arithmetic().autocast;
  const DType softmax_type = wide ? DType::fp32 : scores.dtype;
  // attn_weights = softmax(attn_weights, ...).to(...): bound again when all of it is done.
  Tensor weights = softmax(tape, scores, softmax_type, keys);
  if (shape.casts_probabilities) {
    weights = to(tape, std::move(weights),
                 shape.softmax_in_fp32 || shape.learned_bias ? query_type : value_type);
  }
  scores = Tensor();
  if (call.variables != nullptr) call.variables->push_back(weights);
  const double p = call.variants->dropout ? shape.dropout : 0.0;
  return dropout(tape, std::move(weights), p);
}

// modeling_gpt_oss.py: the sinks as one more column of the masked scores, from which each row's
// largest is taken; the softmax in the scores' own type, then its other columns as a view.
Tensor sunk_probabilities(Tape& tape, const OperatorCall& call, Tensor scores, std::int64_t keys) {
  scores = add(tape, std::move(scores), call.mask);
  const std::int64_t numel = scores.numel;
  const std::int64_t rows = numel / keys;
  Tensor sinks = expand(tape, call.weights[0], rows / call.weights[0].numel);
  sinks.dense = true;
  Tensor columns = cat(tape, std::move(scores), std::move(sinks));
  {
    TopK largest = topk(tape, columns, keys + 1, 1);  // max(dim), which keeps the places alike
    columns = add(tape, std::move(columns), std::move(largest.values));
  }
  const DType type = tape.arithmetic().autocast ? DType::fp32 : columns.dtype;
  Tensor weights = slice(tape, softmax(tape, std::move(columns), type, keys + 1), numel);
  weights.dense = true;  // rows of keys + 1 elements, which the product reads as they lie
  const double p = call.variants->dropout ? call.op->attention.dropout : 0.0;
  return dropout(tape, std::move(weights), p);
}

Tensor eager_attention(Tape& tape, const OperatorCall& call, const AttentionDims& dims,
                       Heads heads) {
  const std::int64_t batch = dims.samples * dims.heads;
  const DType query_type = heads.q.dtype;
  const DType value_type = heads.v.dtype;
  const bool one = dims.samples == 1;
  const model::AttentionShape& shape = call.op->attention;
  if (shape.scales_queries) heads.q = mul_constant(tape, std::move(heads.q));
  Tensor scores = matmul(tape, heads.q, heads.k, batch, dims.queries, dims.keys, dims.head_dim,
                         {.second_transposed = true, .one_sample = one});
  if (!shape.scales_queries && !shape.learned_bias) {
    scores = mul_constant(tape, std::move(scores));  // / sqrt(d)
  }
  Tensor weights =
      call.weights.empty()
          ? probabilities(tape, call, std::move(scores), dims.keys, query_type, value_type)
          : sunk_probabilities(tape, call, std::move(scores), dims.keys);
  Tensor y = matmul(tape, std::move(weights), heads.v, batch, dims.queries, dims.values(),
                    dims.keys, {.result_transposed = true, .one_sample = one});
  return contiguous(tape, view(std::move(y), false));  // transpose(1, 2).reshape
}

// convert_boolean_attn_mask(at::ones(queries, keys).tril())
Tensor causal_bias(Tape& tape, const AttentionDims& dims, DType type) {
  const std::int64_t numel = checked_multiply(dims.queries, dims.keys);
  Tensor ones = tape.allocate(numel, DType::boolean, "ones");
  const Tensor lower = tape.allocate(numel, DType::boolean, "tril");
  ones = Tensor();
  return tape.allocate(numel, type, "where");
}

// From 2.5 on (_safe_softmax) rows in which nothing is left are looked for behind the softmax.
Tensor softmax_of_rows(Tape& tape, Tensor scores, std::int64_t keys, bool safe) {
  const DType type = scores.dtype;
  if (!safe || tape.options().compiled) return softmax(tape, std::move(scores), type, keys);
  const Tensor plain = tape.allocate(scores.numel, type, "softmax");
  tape.pointwise("eq", bytes_of(plain));
  const Tensor least = tape.allocate(scores.numel, DType::boolean, "eq");
  tape.pointwise("all", bytes_of(least));
  tape.pointwise("where", 2 * bytes_of(plain));
  return softmax(tape, std::move(scores), type, keys);  // kept is what `where` made
}

// aten/src/ATen/native/transformers/attention.cpp, _scaled_dot_product_attention_math, whose
// variables live until it returns. From 2.5 on it widens q, k and v of 16 bits to fp32.
Tensor math_attention(Tape& tape, const OperatorCall& call, const AttentionDims& dims,
                      Heads heads) {
  const DType before = heads.q.dtype;
  const bool recent = call.variants->sdpa_math_widens;
  const DType type = recent ? DType::fp32 : before;
  const bool one = dims.samples == 1;
  const std::int64_t batch = dims.samples * dims.heads;
  const Tensor wide_q = to(tape, std::move(heads.q), type);
  const Tensor wide_k = to(tape, std::move(heads.k), type);
  const Tensor wide_v = to(tape, std::move(heads.v), type);
  const Tensor q = mul_constant(tape, wide_q);
  const model::AttentionShape& shape = call.op->attention;
  Tensor mask;
  if (shape.bias || shape.padding_mask)
    mask = call.inputs[3];
  else if (shape.causal)
    mask = causal_bias(tape, dims, type);
  Tensor scores = matmul(tape, q, mul_constant(tape, wide_k), batch, dims.queries, dims.keys,
                         dims.head_dim, {.second_transposed = true, .one_sample = one});
  if (mask) scores = add_in_place(tape, std::move(scores), mask);
  Tensor weights = softmax_of_rows(tape, std::move(scores), dims.keys, recent);
  weights = dropout(tape, std::move(weights), call.variants->dropout ? shape.dropout : 0.0);
  Tensor y = matmul(tape, weights, wide_v, batch, dims.queries, dims.values(), dims.keys,
                    {.result_transposed = true, .one_sample = one});
  y = to(tape, std::move(y), before);
  Tensor second;  // attn.to(origin_dtype), which nobody asked for
  if (type != before && !tape.options().compiled) {
    second = tape.allocate(weights.numel, before, "to");
    tape.pointwise("to", bytes_of(weights) + bytes_of(second));
  }
  second = Tensor();
  return contiguous(tape, view(std::move(y), false));
}

bool turns_samples(const OperatorCall& call) {
  return call.variants->engine_copies == EngineCopies::samples && !runs_own_code(call);
}

// Transformer Engine, DotProductAttention.forward: get_qkv_layout copies what is neither a tensor
// of its own nor one of three pieces of one tensor, whatever kernel runs behind it; FlashAttention
// reads sample by sample, so that of several samples, which lie token by token, all is copied.
void copy_heads(Tape& tape, const OperatorCall& call, bool several, Heads& heads) {
  if (call.variants->engine_copies == EngineCopies::none) return;
  const bool packed = heads.q.storage == heads.k.storage && heads.k.storage == heads.v.storage;
  const bool turned = turns_samples(call);
  for (Tensor* part : {&heads.q, &heads.k, &heads.v}) {
    const bool piece = bytes_of(*part) < part->storage->bytes;
    if ((turned && several) || (piece && (turned || !packed))) {
      *part = contiguous(tape, view(std::move(*part), false));
    }
  }
}

bool repeats_keys(const OperatorCall& call) {
  if (runs_own_code(call)) return true;
  switch (call.variants->key_value_repeat) {
    case KeyValueRepeat::repeat: return true;
    case KeyValueRepeat::grouped: return false;
    case KeyValueRepeat::by_family: return call.op->attention.repeats_for_flash;
  }
  return true;
}

}  // namespace

Tensor attention(Tape& tape, const OperatorCall& call) {
  const AttentionDims dims = dims_of(call);
  Heads heads{call.inputs[0], call.inputs[1], call.inputs[2]};
  if (dims.context == 1) copy_heads(tape, call, dims.samples > 1, heads);
  if (dims.samples == 1) {  // the views of one sample need no copy before a batched product
    heads.q = view(heads.q, true);
    heads.k = view(heads.k, true);
    heads.v = view(heads.v, true);
  }
  const std::int64_t times = dims.heads / dims.kv_heads;
  const bool math = runs_own_code(call);
  if (has_no_kernel(call)) {
    if (times > 1) {
      heads.k = repeat(tape, std::move(heads.k), times);
      heads.v = repeat(tape, std::move(heads.v), times);
    }
    return eager_attention(tape, call, dims, std::move(heads));
  }
  if (times > 1 && repeats_keys(call)) {
    heads.k = repeat(tape, std::move(heads.k), times);
    heads.v = repeat(tape, std::move(heads.v), times);
  }
  const MathAttention code = call.variants->math_attention;
  if (math && (code == MathAttention::fused_softmax || code == MathAttention::wide_softmax)) {
    const double p = call.variants->dropout ? call.op->attention.dropout : 0.0;
    return fused_softmax_attention(tape, std::move(heads.q), std::move(heads.k), std::move(heads.v),
                                   dims, p,
                                   {.widens = code == MathAttention::wide_softmax,
                                    .global_buffer = call.variants->score_buffer,
                                    .adds_bias = call.op->attention.alibi});
  }
  if (math) {
    return call.variants->math_attention == MathAttention::eager
               ? eager_attention(tape, call, dims, std::move(heads))
               : math_attention(tape, call, dims, std::move(heads));
  }
  AttentionDims kernel = dims;
  if (heads.k.numel == heads.q.numel && dims.queries * dims.context == dims.keys) {
    kernel.kv_heads = dims.heads;
  }
  // Flash attention has no fp32 kernel: PyTorch falls back to the memory-efficient one.
  const bool wide = tape.arithmetic().compute == DType::fp32;
  // Nor has it a mask (sdp_utils.cpp, check_for_attn_mask).
  const bool biased = call.op->attention.bias;
  const bool uneven = dims.values() != dims.head_dim && call.op->attention.one_width;
  const bool efficient =
      wide || biased || uneven || call.variants->attention == AttentionKernel::efficient;
  // Where a card has the flash kernel, torch's choice falls on this one for a mask of the padding,
  // and under a mask all scores are computed (transformers, sdpa_attention.py: is_causal).
  if (call.variants->attention == AttentionKernel::efficient) kernel.computed_share = 1.0;
  // mha_fwd's result is empty_like(q): where q was joined of two parts it lies in memory head by
  // head, and so does the result, which is copied before its heads are put side by side.
  const bool by_head = !efficient && kernel.context == 1 && call.inputs[0].dense;
  // Where it lies sample by sample and is wanted token by token it is copied too.
  const bool by_sample =
      call.op->attention.tokens_first && (efficient || call.variants->flash_result_in_rows);
  Tensor y = kernel.context > 1
                 ? attention_over_context(tape, std::move(heads.q), std::move(heads.k),
                                          std::move(heads.v), kernel, efficient)
                 : fused_attention(tape, std::move(heads.q), std::move(heads.k), std::move(heads.v),
                                   kernel, efficient, biased ? call.inputs[3] : Tensor());
  const bool turned = kernel.context == 1 && turns_samples(call) && dims.samples > 1;
  return by_head || by_sample || turned ? contiguous(tape, view(std::move(y), false)) : y;
}

Tensor recomputed_attention(Tape& tape, const OperatorCall& call) {
  OperatorCall again = call;
  again.inputs.clear();  // the part gets them
  return recomputed(tape, call.inputs,
                    [again = std::move(again)](Tape& t, const std::vector<Tensor>& inputs) {
                      OperatorCall now = again;
                      now.inputs = inputs;
                      return std::vector<Tensor>{attention(t, now)};
                    });
}

}  // namespace steelyard::step
