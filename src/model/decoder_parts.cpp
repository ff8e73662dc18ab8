#include "model/decoder_parts.h"

namespace steelyard::model {

namespace {

TensorRef normed(BlockBuilder& block, const std::string& name, TensorRef in, QkNorm kind) {
  switch (kind) {
    case QkNorm::none:
    case QkNorm::rms_whole: return in;
    case QkNorm::rms_per_head: return block.rms_norm(name, in);
    case QkNorm::layer_per_head: return block.layer_norm(name, in);
    case QkNorm::layer_each_head: return block.layer_norm_per_head(name, in);
  }
  return in;
}

}  // namespace

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
                             const AttentionPart& part) {
  const std::string module = part.module + ".";
  q = normed(block, module + part.q_norm, q, part.qk_norm);
  k = normed(block, module + part.k_norm, k, part.qk_norm);
  if (part.rotary_dims > 0) {
    const auto turned = block.rotary(module + "rotary", q, k, kCos, kSin, part.rotary_dims);
    q = turned.first;
    k = turned.second;
  }
  const TensorRef mixed = block.attention(part.module, q, k, v, part.shape);
  return block.linear(module + part.out, mixed, part.hidden, {.bias = part.out_bias});
}

TensorRef add_attention(BlockBuilder& block, TensorRef x, const AttentionPart& part) {
  const std::string module = part.module + ".";
  const AttentionShape& shape = part.shape;
  const LinearOptions options{.bias = part.qkv_bias};
  TensorRef q = block.linear(module + "q_proj", x, shape.heads * shape.head_dim, options);
  if (part.qk_norm == QkNorm::rms_whole) q = block.rms_norm(module + part.q_norm, q);
  TensorRef k = block.linear(module + "k_proj", x, shape.kv_heads * shape.head_dim, options);
  if (part.qk_norm == QkNorm::rms_whole) k = block.rms_norm(module + part.k_norm, k);
  TensorRef v = block.linear(module + "v_proj", x, shape.kv_heads * shape.head_dim, options);
  q = block.heads(module + "q_heads", q, shape.heads);
  k = block.heads(module + "k_heads", k, shape.kv_heads);
  v = block.heads(module + "v_heads", v, shape.kv_heads);
  return add_attention_core(block, q, k, v, part);
}

TensorRef add_gated_mlp(BlockBuilder& block, TensorRef x, const MlpPart& part) {
  const std::string module = part.module + ".";
  const LinearOptions options{.bias = part.bias};
  const TensorRef gate = block.linear(module + "gate_proj", x, part.intermediate, options);
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

}  // namespace steelyard::model
