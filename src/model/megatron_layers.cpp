// What Megatron-LM's layers do, in the order of its code.
//
// The projections leave their bias to the operator behind them: fc1's goes into the activation,
// proj's and fc2's into the sum with the residual (skip_bias_add).
#include "model/megatron_layers.h"

#include <utility>

namespace steelyard::model {

TensorRef megatron_norm(BlockBuilder& block, const Megatron& model, const std::string& name,
                        TensorRef x) {
  return model.rms ? block.rms_norm(name, x) : block.layer_norm(name, x);
}

namespace {

// A norm with a module of its own, or inside of the linear behind it.
TensorRef normed(BlockBuilder& block, const Megatron& model, const std::string& name, TensorRef x,
                 bool inside) {
  const TensorRef y = megatron_norm(block, model, name, x);
  if (inside && model.norms_in_linears) block.inside_next();
  return y;
}

AttentionShape attention_shape(const Megatron& model, bool window) {
  AttentionShape shape;
  shape.heads = model.sizes.heads;
  shape.kv_heads = model.sizes.kv_heads;
  shape.head_dim = model.sizes.head_dim;
  shape.window = window ? model.window : 0;
  shape.alibi = model.alibi;
  shape.causal = model.causal;
  shape.dropout = model.attention_dropout;
  return shape;
}

TensorRef core_attention(BlockBuilder& block, const Megatron& model, TensorRef q, TensorRef k,
                         TensorRef v, const AttentionShape& shape) {
  return block.attention("self_attention.core_attention", q, k, v, shape,
                         model.sinks ? "self_attention.core_attention.softmax_offset" : "");
}

// core/transformer/multi_latent_attention.py: queries, keys and values from compressed ones.
TensorRef latent_attention_of(BlockBuilder& block, const Megatron& model, TensorRef x) {
  const Sizes& sizes = model.sizes;
  AttentionShape shape = attention_shape(model, false);
  shape.value_dim = model.value_dim;
  TensorRef q = x;
  if (model.query_rank > 0) {
    q = block.linear("self_attention.linear_q_down_proj", x, model.query_rank,
                     {.replicated = true});
  }
  const TensorRef down = block.linear("self_attention.linear_kv_down_proj", x,
                                      model.key_rank + model.turning, {.replicated = true});
  const auto parts = block.split("self_attention.split", down,
                                 {{"kv", model.key_rank}, {"positions", model.turning}});
  if (model.query_rank > 0 && model.qk_norm) {
    q = normed(block, model, "self_attention.q_layernorm", q, true);
  }
  q = block.linear(
      model.query_rank > 0 ? "self_attention.linear_q_up_proj" : "self_attention.linear_q_proj", q,
      sizes.heads * sizes.head_dim);
  TensorRef kv = parts[0];
  if (model.qk_norm) kv = normed(block, model, "self_attention.kv_layernorm", kv, true);
  kv = block.linear("self_attention.linear_kv_up_proj", kv,
                    sizes.heads * (sizes.head_dim - model.turning + model.value_dim));
  const auto heads =
      block.latent_heads("self_attention.latent_heads", q, kv, parts[1], kCos, shape);
  return core_attention(block, model, heads[0], heads[1], heads[2], shape);
}

TensorRef attention_of(BlockBuilder& block, const Megatron& model, TensorRef x, bool window) {
  const Sizes& sizes = model.sizes;
  const std::int64_t query = sizes.heads * sizes.head_dim;
  const std::int64_t key = sizes.kv_heads * sizes.head_dim;
  const TensorRef fused =
      block.linear("self_attention.linear_qkv", x, query + 2 * key, {.bias = model.qkv_bias});
  const auto parts =
      block.split("self_attention.split", fused, {{"q", query}, {"k", key}, {"v", key}});
  TensorRef q = block.heads("self_attention.q_heads", parts[0], sizes.heads);
  TensorRef k = block.heads("self_attention.k_heads", parts[1], sizes.kv_heads);
  const TensorRef v = block.heads("self_attention.v_heads", parts[2], sizes.kv_heads);
  if (model.qk_norm) {
    q = megatron_norm(block, model, "self_attention.q_layernorm", q);
    k = megatron_norm(block, model, "self_attention.k_layernorm", k);
  }
  if (model.rotary_dims > 0) {
    const auto turned = block.rotary("self_attention.rotary", q, k, kCos, kSin, model.rotary_dims);
    q = turned.first;
    k = turned.second;
  }
  return core_attention(block, model, q, k, v, attention_shape(model, window));
}

// core/transformer/attention.py (CrossAttention): queries of x; keys and values of the encoder's
// states in one product.
TensorRef cross_attention_of(BlockBuilder& block, const Megatron& model, TensorRef x,
                             TensorRef states) {
  const Sizes& sizes = model.sizes;
  const std::int64_t query = sizes.heads * sizes.head_dim;
  const std::int64_t key = sizes.kv_heads * sizes.head_dim;
  TensorRef q = block.linear("cross_attention.linear_q", x, query, {.bias = model.qkv_bias});
  const TensorRef fused =
      block.linear("cross_attention.linear_kv", states, 2 * key, {.bias = model.qkv_bias});
  const auto parts = block.split("cross_attention.split", fused, {{"k", key}, {"v", key}});
  q = block.heads("cross_attention.q_heads", q, sizes.heads);
  const TensorRef k = block.heads("cross_attention.k_heads", parts[0], sizes.kv_heads);
  const TensorRef v = block.heads("cross_attention.v_heads", parts[1], sizes.kv_heads);
  AttentionShape shape = attention_shape(model, false);
  shape.causal = false;
  return block.attention("cross_attention.core_attention", q, k, v, shape);
}

// mlp.py without its fused kernels: of a gated activation the second half goes through an addition
// of glu_linear_offset, which makes a tensor of its own; legacy layers multiply it as it is.
TensorRef separate_activation(BlockBuilder& block, const Megatron& model, TensorRef h,
                              const std::string& module, std::int64_t inner, bool bias) {
  h = block.linear(module + ".linear_fc1", h, model.gated ? 2 * inner : inner, {.bias = bias});
  const std::string name = module + ".activation_func";
  if (!model.gated) return block.activation(name, h, model.activation);
  const auto halves = block.split(module + ".chunk", h, {{"glu", inner}, {"linear", inner}});
  const TensorRef linear =
      model.legacy ? halves[1] : block.scale(module + ".glu_linear_offset", halves[1], 1.0);
  return block.gated_activation(name, halves[0], linear, model.activation);
}

// A projection back to the model's width and the sum with the residual.
TensorRef projected_sum(BlockBuilder& block, const Megatron& model, TensorRef h, TensorRef residual,
                        const std::string& linear, const std::string& sum, bool bias) {
  const bool fused = model.fuses_dropout;
  h = block.linear(linear, h, model.sizes.hidden, {.bias = bias && !fused});
  if (fused) {
    return block.bias_dropout_add(sum, h, residual, model.hidden_dropout,
                                  bias ? linear + ".bias" : "");
  }
  return block.add(sum, residual, block.dropout(sum + ".dropout", h, model.hidden_dropout));
}

// fc1, activation: on all tokens.
TensorRef first_half(BlockBuilder& block, const Megatron& model, TensorRef h,
                     const std::string& module, std::int64_t inner, bool bias) {
  if (!model.fuses_activation) return separate_activation(block, model, h, module, inner, bias);
  h = block.linear(module + ".linear_fc1", h, model.gated ? 2 * inner : inner);
  return block.bias_activation(module + ".activation_func", h, model.activation, model.gated,
                               bias ? module + ".linear_fc1.bias" : "");
}

// megatron/core/transformer/moe/moe_layer.py: routed experts and the one that sees every token.
// Latent ones work between two projections that every rank holds.
TensorRef mixture_of(BlockBuilder& block, const Megatron& model, TensorRef h) {
  const auto [weights, chosen] = block.router("mlp.router", h, model.mixture);
  TensorRef x = h;
  if (model.latent_experts > 0) {
    x = block.linear("mlp.fc1_latent_proj", x, model.latent_experts,
                     {.bias = model.bias, .replicated = true});
  }
  const auto assigned = block.expert_assignment("mlp.token_dispatcher", chosen, model.mixture);
  TensorRef routed = block.two_matrix_experts("mlp.experts.local_experts", x, weights, assigned,
                                              model.mixture, model.activation, model.gated);
  if (model.latent_experts > 0) {
    routed = block.linear("mlp.fc2_latent_proj", routed, model.sizes.hidden,
                          {.bias = model.bias, .replicated = true});
  }
  if (model.shared_inner == 0) return routed;
  const std::string module = "mlp.shared_experts";
  TensorRef shared = first_half(block, model, h, module, model.shared_inner, false);
  shared = block.linear(module + ".linear_fc2", shared, model.sizes.hidden);
  return block.add("mlp.sum", routed, shared);
}

// Norm, attention and its sum with the residual.
TensorRef attention_half(BlockBuilder& block, const Megatron& model, TensorRef x, bool window) {
  TensorRef h = normed(block, model, "input_layernorm", x, !model.latent);
  h = model.latent ? latent_attention_of(block, model, h) : attention_of(block, model, h, window);
  return projected_sum(block, model, h, x, "self_attention.linear_proj", "self_attn_bda",
                       model.bias);
}

TensorRef feed_forward_half(BlockBuilder& block, const Megatron& model, TensorRef x, bool mixture) {
  TensorRef h = normed(block, model, "pre_mlp_layernorm", x, !mixture);
  if (!mixture) {
    h = first_half(block, model, h, "mlp", model.inner, model.bias);
    return projected_sum(block, model, h, x, "mlp.linear_fc2", "mlp_bda", model.bias);
  }
  return block.bias_dropout_add("mlp_bda", mixture_of(block, model, h), x, model.hidden_dropout,
                                "");
}

// megatron/core/ssm/mamba_layer.py and mamba_mixer.py: no projection of the mixer has a bias.
TensorRef mamba_layer(BlockBuilder& block, const Megatron& model, TensorRef x) {
  const ScanShape& scan = model.scan;
  TensorRef h = normed(block, model, "norm", x, true);
  h = block.linear("mixer.in_proj", h,
                   2 * scan.channels() + 2 * scan.groups * scan.state + scan.heads);
  h = block.state_scan("mixer", h, scan);
  h = block.grouped_rms_norm("mixer.norm", h, scan.groups);
  h = block.linear("mixer.out_proj", h, model.sizes.hidden);
  return block.bias_dropout_add("mamba_bda", h, x, model.hidden_dropout, "");
}

}  // namespace

TensorRef megatron_layer(BlockBuilder& block, const Megatron& model, int kind, TensorRef x) {
  if (!model.hybrid) {
    const TensorRef middle = attention_half(block, model, x, (kind & kWindow) != 0);
    return feed_forward_half(block, model, middle, (kind & kMixture) != 0);
  }
  switch (kind) {
    case 'M': return mamba_layer(block, model, x);
    case '-': return feed_forward_half(block, model, x, false);
    case 'E': return feed_forward_half(block, model, x, true);
    default: return attention_half(block, model, x, false);  // * and +
  }
}

TensorRef megatron_decoder_layer(BlockBuilder& block, const Megatron& model, TensorRef x,
                                 TensorRef states) {
  x = attention_half(block, model, x, false);
  TensorRef h = megatron_norm(block, model, "pre_cross_attn_layernorm", x);
  h = cross_attention_of(block, model, h, states);
  x = projected_sum(block, model, h, x, "cross_attention.linear_proj", "cross_attn_bda",
                    model.bias);
  return feed_forward_half(block, model, x, false);
}

Block megatron_predictions(const Graph& graph, const Megatron& model) {
  BlockBuilder block(graph, "mtp");
  const std::string table = "embedding.word_embeddings";
  TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  block.prefix_weights("decoder.");
  x = megatron_norm(block, model, model.hybrid ? "final_norm" : "final_layernorm", x);
  std::vector<TensorRef> states = {x};
  for (std::int64_t i = 0; i < model.predictions; ++i) {
    block.prefix_weights("mtp.");
    TensorRef next =
        block.embedding(table, kTokenIds, graph.vocabulary, graph.hidden, table + ".weight");
    if (i > 0) block.share_weight(table);
    next = block.dropout("embedding.embedding_dropout", next, model.hidden_dropout);
    const std::string own = "mtp.layers." + std::to_string(i) + ".";
    const bool shared = i > 0 && model.shares_predictions;
    block.prefix_weights(own, shared ? "mtp.layers.0." : "");
    next = megatron_norm(block, model, "enorm", next);
    x = megatron_norm(block, model, "hnorm", x);
    x = block.join("eh_proj.input", {next, x}, 2);
    x = block.linear("eh_proj", x, model.sizes.hidden, {.gathers_output = true});
    for (std::size_t layer = 0; layer < model.prediction_kinds.size(); ++layer) {
      const std::string inner = model.hybrid
                                    ? "mtp_model_layer.layers." + std::to_string(layer) + "."
                                    : "mtp_model_layer.";
      block.prefix_weights(own + inner, shared ? "mtp.layers.0." + inner : "");
      x = megatron_layer(block, model, model.prediction_kinds[layer], x);
    }
    block.prefix_weights(own, shared ? "mtp.layers.0." : "");
    x = megatron_norm(block, model, "final_layernorm", x);
    states.push_back(x);
  }
  // Of the same size whichever way they lie; the head takes whole states out of it again.
  return block.finish(block.join("mtp.cat", states, 2));
}

Block megatron_prediction_head(const Graph& graph, const Megatron& model) {
  BlockBuilder block(graph, "head");
  const std::string name = "output_layer";
  const std::int64_t count = model.predictions + 1;
  const TensorRef all = block.input({graph.batch, graph.sequence, count * model.sizes.hidden});
  const std::vector<TensorRef> states = block.chunk("chunk", all, count);
  TensorRef x = states[0];
  for (std::int64_t i = 1; i <= count; ++i) {
    const bool last = i == count;
    const TensorRef logits =
        block.linear(name, last ? x : states[static_cast<std::size_t>(i)], graph.vocabulary,
                     {.tied_to = model.sizes.tied ? "embedding.word_embeddings.weight" : ""});
    if (i > 1) block.share_weight(name);
    const TensorRef loss = block.causal_lm_loss(logits, kTokenIds);
    if (last) return block.finish(loss);
    x = block.attach_loss("mtp_loss", x, loss);
  }
  return block.finish(x);
}

}  // namespace steelyard::model
