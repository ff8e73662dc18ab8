#include "model/decoder_parts.h"

#include <tuple>

namespace steelyard::model {

namespace {

TensorRef normed(BlockBuilder& block, const std::string& name, TensorRef in, QkNorm kind) {
  switch (kind) {
    case QkNorm::none:
    case QkNorm::rms_whole:
    case QkNorm::rms_unit_turned:
    case QkNorm::rms_per_head_turned: return in;
    case QkNorm::rms_per_head: return block.rms_norm(name, in);
    case QkNorm::rms_per_head_offset: return block.rms_norm(name, in, true);
    case QkNorm::layer_per_head: return block.layer_norm(name, in);
    case QkNorm::layer_written_out:
      return block.written_layer_norm(name, in, block.shape(in).at(1));
    case QkNorm::layer_each_head: return block.layer_norm_per_head(name, in);
  }
  return in;
}

std::pair<TensorRef, TensorRef> tables_of(BlockBuilder& block, TensorRef q,
                                          const AttentionPart& part) {
  const std::string module = part.module + ".";
  if (part.sections) {
    return block.rotary_sections(module + "rotary_sections", part.cos, part.sin);
  }
  if (!part.spreads_tables) return {part.cos, part.sin};
  // cos[..., : cos.shape[-1] // 2].repeat_interleave(2, dim=-1)
  return block.own_rotary_table(module + "rotary_tables", part.cos,
                                {1, block.shape(q).at(2), part.rotary_dims});
}

std::pair<TensorRef, TensorRef> turned(BlockBuilder& block, TensorRef q, TensorRef k,
                                       const AttentionPart& part) {
  if (part.rotary_dims == 0) return {q, k};
  const auto [cos, sin] = tables_of(block, q, part);
  const auto both = block.rotary(part.module + ".rotary", q, k, cos, sin, part.rotary_dims,
                                 part.rotary_joins_rest);
  block.last().turns_pairs = part.turns_pairs;
  block.last().turns_complex = part.turns_complex;
  block.last().turns_halves = part.turns_halves;
  return both;
}

}  // namespace

void add_local_tables(Graph& graph, const std::string& name, std::int64_t dims, TensorRef cos,
                      TensorRef sin) {
  graph.shared.push_back({"local_cos", {1, graph.sequence, dims}, ElementKind::real});
  graph.shared.push_back({"local_sin", {1, graph.sequence, dims}, ElementKind::real});
  Operator& table = graph.segments.front().blocks.front().operators.emplace_back();
  table.kind = OperatorKind::rotary_table;
  table.name = name;
  table.outputs = {cos, sin};
}

AttentionPart attention_part(const Sizes& sizes) {
  AttentionPart part;
  part.shape.heads = sizes.heads;
  part.shape.kv_heads = sizes.kv_heads;
  part.shape.head_dim = sizes.head_dim;
  part.shape.softmax_in_fp32 = true;
  part.hidden = sizes.hidden;
  part.rotary_dims = sizes.head_dim;
  return part;
}

TensorRef add_attention_core(BlockBuilder& block, TensorRef q, TensorRef k, TensorRef v,
                             const AttentionPart& part, TensorRef gate) {
  const std::string module = part.module + ".";
  q = normed(block, module + part.q_norm, q, part.qk_norm);
  k = normed(block, module + part.k_norm, k, part.qk_norm);
  std::tie(q, k) = turned(block, q, k, part);
  if (part.qk_norm == QkNorm::rms_unit_turned) {
    q = block.unit_rms_norm(module + part.q_norm, q);
    k = block.unit_rms_norm(module + part.k_norm, k);
  }
  if (part.qk_norm == QkNorm::rms_per_head_turned) {
    q = block.rms_norm(module + part.q_norm, q);
    k = block.rms_norm(module + part.k_norm, k);
  }
  if (part.scales_queries) {
    const TensorRef scales = block.values(module + "attn_scales", {1, block.shape(q).at(2), 1, 1});
    block.last().wide_tables = true;
    q = block.multiply(module + "temperature", q, scales);
    block.last().wide_tables = true;
  }
  TensorRef mixed = block.attention(part.module, q, k, v, part.shape, part.sink);
  if (part.output_gate) {
    mixed = block.gated_activation(module + "output_gate", gate, mixed, ActivationKind::sigmoid);
  }
  return block.linear(module + part.out, mixed, part.hidden, {.bias = part.out_bias});
}

TensorRef add_attention(BlockBuilder& block, TensorRef x, const AttentionPart& part) {
  const std::string module = part.module + ".";
  const AttentionShape& shape = part.shape;
  const LinearOptions options{.bias = part.qkv_bias};
  if (!part.fused.empty()) {
    const std::int64_t queries = shape.heads * shape.head_dim;
    const std::int64_t keys = shape.kv_heads * shape.head_dim;
    const TensorRef all = block.linear(module + part.fused, x, queries + 2 * keys, options);
    const auto qkv = block.split(module + "split", all, {{"q", queries}, {"k", keys}, {"v", keys}});
    return add_attention_core(block, block.heads(module + "q_heads", qkv[0], shape.heads),
                              block.heads(module + "k_heads", qkv[1], shape.kv_heads),
                              block.heads(module + "v_heads", qkv[2], shape.kv_heads), part);
  }
  const bool normed_whole = part.qk_norm == QkNorm::rms_whole;
  // self.q_proj(x).view(...).transpose(1, 2), then the same of k and v; with norms of the whole
  // width the views come last (modeling_olmo2.py).
  const auto heads = [&](const std::string& name, TensorRef y, std::int64_t count) {
    return block.heads(module + name + "_heads", y, count);
  };
  const auto projected = [&](const std::string& name, std::int64_t count, const std::string& norm) {
    TensorRef y = block.linear(module + name + "_proj", x, count * shape.head_dim, options);
    if (!normed_whole) return heads(name, y, count);
    return norm.empty() ? y : block.rms_norm(module + norm, y);
  };
  TensorRef q, gate;
  if (part.output_gate) {
    const std::int64_t queries = shape.heads * shape.head_dim;
    const TensorRef both = block.linear(module + "q_proj", x, 2 * queries, options);
    const auto parts =
        block.split(module + "split", both, {{"q", queries}, {"gate", queries}}, true);
    q = heads("q", parts[0], shape.heads);
    gate = parts[1];
  } else {
    q = projected("q", shape.heads, part.q_norm);
  }
  TensorRef k = projected("k", shape.kv_heads, part.k_norm);
  if (part.key_scale != 0.0) k = block.scale(module + "key_multiplier", k, part.key_scale);
  TensorRef v = projected("v", shape.kv_heads, "");
  if (normed_whole) {
    q = heads("q", q, shape.heads);
    k = heads("k", k, shape.kv_heads);
    v = heads("v", v, shape.kv_heads);
  }
  return add_attention_core(block, q, k, v, part, gate);
}

TensorRef add_gated_mlp(BlockBuilder& block, TensorRef x, const MlpPart& part) {
  const std::string module = part.module + ".";
  const LinearOptions options{.bias = part.bias};
  const TensorRef gate = block.linear(module + part.gate, x, part.intermediate, options);
  const TensorRef up = block.linear(module + part.up, x, part.intermediate, options);
  const TensorRef h = block.gated_activation(module + part.act, gate, up, part.activation);
  return block.linear(module + part.down, h, block.width(x), options);
}

TensorRef add_plain_mlp(BlockBuilder& block, TensorRef x, const MlpPart& part) {
  const std::string module = part.module + ".";
  const LinearOptions options{.bias = part.bias};
  TensorRef h = block.linear(module + part.up, x, part.intermediate, options);
  h = block.activation(module + part.act, h, part.activation);
  return block.linear(module + part.down, h, block.width(x), options);
}

TensorRef add_fused_mlp(BlockBuilder& block, TensorRef x, const MlpPart& part) {
  const std::string module = part.module + ".";
  const LinearOptions options{.bias = part.bias};
  TensorRef h = block.linear(module + part.both, x, 2 * part.intermediate, options);
  h = block.fused_gated_activation(module + part.act, h, part.activation);
  return block.linear(module + part.down, h, block.width(x), options);
}

TensorRef add_mlp(BlockBuilder& block, TensorRef x, const MlpPart& part) {
  switch (part.form) {
    case MlpForm::gated: return add_gated_mlp(block, x, part);
    case MlpForm::fused: return add_fused_mlp(block, x, part);
    case MlpForm::plain: return add_plain_mlp(block, x, part);
  }
  return x;
}

TensorRef add_mamba2(BlockBuilder& block, TensorRef x, const MambaPart& part) {
  const ScanShape& scan = part.scan;
  const std::int64_t columns = 2 * scan.channels() + 2 * scan.groups * scan.state + scan.heads;
  const TensorRef h = block.linear(part.module + ".in_proj", x, columns, {.bias = part.bias});
  return block.state_scan(part.module, h, scan,
                          {.norm = part.module + ".norm",
                           .project = part.module + ".out_proj",
                           .width = block.width(x),
                           .taps = part.taps,
                           .conv_bias = part.conv_bias,
                           .project_bias = part.bias});
}

}  // namespace steelyard::model
