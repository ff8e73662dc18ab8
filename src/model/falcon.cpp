// Falcon (transformers: modeling_falcon.py). Three architectures under one name: Falcon-RW (ALiBi,
// halves in sequence), Falcon-7B (one key head, halves in parallel behind one norm), and the "new
// decoder architecture" of 40B and 180B (groups of heads, a norm for each half).
//
// The fused projection interleaves queries, keys and values by group; only the sizes matter here,
// so the parts are split as if they lay one behind the other.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Falcon {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  bool bias = false, alibi = false, parallel = true, two_norms = false;
  // _split_heads: qkv[:, :, :, [-2]], by a list, where key heads are fewer.
  bool gathers_parts = false;
  double attention_dropout = 0.0, hidden_dropout = 0.0;
};

std::int64_t falcon_kv_heads(ConfigReader& config, std::int64_t heads, bool new_architecture) {
  if (new_architecture) return config.whole({"num_kv_heads", "n_head_kv"}, heads, kHeadLimits);
  return config.flag({"multi_query"}, true) ? 1 : heads;
}

Sizes read_falcon_sizes(ConfigReader& config, bool new_architecture) {
  Sizes sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, 65024, kVocabularyLimits);
  sizes.hidden = config.whole({"hidden_size", "n_embed"}, 4544, kHiddenLimits);
  sizes.layers = config.whole({"num_hidden_layers", "n_layer"}, 32, kLayerLimits);
  sizes.heads = config.whole({"num_attention_heads", "n_head"}, 71, kHeadLimits);
  sizes.head_dim =
      divided_heads(config, sizes.hidden, sizes.heads, "hidden_size", "num_attention_heads");
  sizes.kv_heads = falcon_kv_heads(config, sizes.heads, new_architecture);
  check_kv_heads(config, sizes, "num_kv_heads");
  sizes.max_sequence = config.whole({"max_position_embeddings"}, 2048, kPositionLimits);
  sizes.tied = config.flag({"tie_word_embeddings"}, true);
  return sizes;
}

Falcon read_falcon(ConfigReader& config) {
  Falcon falcon;
  const bool new_architecture = config.flag({"new_decoder_architecture"}, false);
  falcon.sizes = read_falcon_sizes(config, new_architecture);
  falcon.gathers_parts = new_architecture || falcon.sizes.kv_heads < falcon.sizes.heads;
  falcon.bias = config.flag({"bias"}, false);
  falcon.alibi = config.flag({"alibi"}, false);
  falcon.parallel = new_architecture || config.flag({"parallel_attn"}, true);
  falcon.two_norms = new_architecture &&
                     config.whole({"num_ln_in_parallel_attn"}, 2, {.least = 1, .most = 2}) == 2;
  falcon.attention_dropout = config.probability({"attention_dropout"}, 0.0);
  falcon.hidden_dropout = config.probability({"hidden_dropout"}, 0.0);

  falcon.attention = attention_part(falcon.sizes);
  falcon.attention.module = "self_attention";
  falcon.attention.out = "dense";
  falcon.attention.out_bias = falcon.bias;
  falcon.attention.rotary_dims = falcon.alibi ? 0 : falcon.sizes.head_dim;
  falcon.attention.shape.alibi = falcon.alibi;
  falcon.attention.shape.softmax_in_fp32 = false;
  falcon.attention.shape.dropout = falcon.attention_dropout;
  falcon.mlp.intermediate = config.whole({"ffn_hidden_size"}, 4 * falcon.sizes.hidden, kWideLimits);
  falcon.mlp.activation = config.activation({"activation"}, "gelu");
  falcon.mlp.bias = falcon.bias;
  falcon.mlp.up = "dense_h_to_4h";
  falcon.mlp.down = "dense_4h_to_h";
  falcon.mlp.act = "act";
  return falcon;
}

TensorRef falcon_attention(BlockBuilder& block, TensorRef x, const Falcon& falcon) {
  const Sizes& sizes = falcon.sizes;
  const std::int64_t keys = sizes.kv_heads * sizes.head_dim;
  const TensorRef fused = block.linear("self_attention.query_key_value", x, sizes.hidden + 2 * keys,
                                       {.bias = falcon.bias});
  const auto qkv =
      block.split("self_attention.split", fused, {{"q", sizes.hidden}, {"k", keys}, {"v", keys}},
                  falcon.gathers_parts);
  const TensorRef q = block.heads("self_attention.q_heads", qkv[0], sizes.heads);
  const TensorRef k = block.heads("self_attention.k_heads", qkv[1], sizes.kv_heads);
  const TensorRef v = block.heads("self_attention.v_heads", qkv[2], sizes.kv_heads);
  return add_attention_core(block, q, k, v, falcon.attention);
}

Block falcon_layer(const Graph& graph, const Falcon& falcon) {
  BlockBuilder block(graph, "transformer.h");
  const TensorRef x = block.input({graph.batch, graph.sequence, falcon.sizes.hidden});
  TensorRef normed = block.layer_norm(falcon.two_norms ? "ln_attn" : "input_layernorm", x);
  TensorRef fed = falcon.two_norms ? block.layer_norm("ln_mlp", x) : normed;
  TensorRef mixed = falcon_attention(block, normed, falcon);
  TensorRef residual = x;
  if (!falcon.parallel) {
    mixed = block.dropout("dropout_attention", mixed, falcon.attention_dropout);
    residual = block.add("residual_attention", x, mixed);
    fed = block.layer_norm("post_attention_layernorm", residual);
  }
  fed = add_plain_mlp(block, fed, falcon.mlp);
  if (falcon.parallel) fed = block.add("residual_attention", fed, mixed);
  fed = block.dropout("dropout_mlp", fed, falcon.hidden_dropout);
  return block.finish(block.add("residual_mlp", residual, fed));
}

}  // namespace

Graph build_falcon(ConfigReader& config, const SampleShape& sample) {
  const Falcon falcon = read_falcon(config);
  Graph graph = start_graph(config, falcon.sizes, sample);
  add_embed(graph, {.name = "transformer.word_embeddings",
                    .rotary_dims = falcon.attention.rotary_dims,
                    .rotary_name = "transformer.rotary_emb"});
  graph.segments.push_back({falcon.sizes.layers, {falcon_layer(graph, falcon)}});
  add_head(graph, falcon.sizes,
           {.norm = HeadOptions::Norm::layer,
            .norm_name = "transformer.ln_f",
            .embedding_name = "transformer.word_embeddings",
            .widens_logits = false});
  return graph;
}

}  // namespace steelyard::model
