// BLOOM (transformers: modeling_bloom.py): ALiBi instead of positions, a LayerNorm behind the
// embedding, one projection that holds query, key and value head by head.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Bloom {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  bool residual_behind_norm = false;
  double hidden_dropout = 0.0;
};

Bloom read_bloom(ConfigReader& config) {
  Bloom bloom;
  Sizes& sizes = bloom.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, 250880, kVocabularyLimits);
  sizes.hidden = config.whole({"hidden_size", "n_embed"}, 64, kHiddenLimits);
  sizes.layers = config.whole({"n_layer", "num_hidden_layers"}, 2, kLayerLimits);
  sizes.heads = config.whole({"n_head", "num_attention_heads"}, 8, kHeadLimits);
  sizes.kv_heads = sizes.heads;
  sizes.head_dim = divided_heads(config, sizes.hidden, sizes.heads, "hidden_size", "n_head");
  sizes.tied = config.flag({"tie_word_embeddings"}, true);

  bloom.attention = attention_part(sizes);
  bloom.attention.module = "self_attention";
  bloom.attention.out = "dense";
  bloom.attention.out_bias = true;
  bloom.attention.rotary_dims = 0;
  bloom.attention.shape.alibi = true;
  bloom.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  bloom.mlp = {.intermediate = 4 * sizes.hidden,
               .activation = ActivationKind::bloom_gelu,
               .bias = true,
               .up = "dense_h_to_4h",
               .down = "dense_4h_to_h",
               .act = "gelu_impl"};
  bloom.residual_behind_norm = config.flag({"apply_residual_connection_post_layernorm"}, false);
  bloom.hidden_dropout = config.probability({"hidden_dropout"}, 0.0);
  return bloom;
}

TensorRef bloom_attention(BlockBuilder& block, TensorRef x, const Bloom& bloom) {
  const Sizes& sizes = bloom.sizes;
  TensorRef fused =
      block.linear("self_attention.query_key_value", x, 3 * sizes.hidden, {.bias = true});
  fused = block.heads("self_attention.heads", fused, sizes.heads);  // [B,n,S,3d]
  const auto qkv =
      block.split("self_attention.split", fused,
                  {{"q", sizes.head_dim}, {"k", sizes.head_dim}, {"v", sizes.head_dim}});
  const TensorRef out = add_attention_core(block, qkv[0], qkv[1], qkv[2], bloom.attention);
  return block.dropout("self_attention.hidden_dropout", out, bloom.hidden_dropout);
}

Block bloom_layer(const Graph& graph, const Bloom& bloom) {
  BlockBuilder block(graph, "transformer.h");
  const TensorRef x = block.input({graph.batch, graph.sequence, bloom.sizes.hidden});
  const TensorRef first = block.layer_norm("input_layernorm", x);
  TensorRef h = bloom_attention(block, first, bloom);
  const TensorRef middle =
      block.add("residual_attention", bloom.residual_behind_norm ? first : x, h);
  const TensorRef second = block.layer_norm("post_attention_layernorm", middle);
  h = add_plain_mlp(block, second, bloom.mlp);
  h = block.dropout("mlp.hidden_dropout", h, bloom.hidden_dropout);
  return block.finish(block.add("residual_mlp", bloom.residual_behind_norm ? second : middle, h));
}

}  // namespace

Graph build_bloom(ConfigReader& config, const SampleShape& sample) {
  const Bloom bloom = read_bloom(config);
  Graph graph = start_graph(config, bloom.sizes, sample);
  BlockBuilder embed(graph, "embed");
  TensorRef x =
      embed.embedding("transformer.word_embeddings", kTokenIds, graph.vocabulary, graph.hidden);
  x = embed.layer_norm("transformer.word_embeddings_layernorm", x);
  graph.segments.push_back({1, {embed.finish(x)}});
  graph.segments.push_back({bloom.sizes.layers, {bloom_layer(graph, bloom)}});
  add_head(graph, bloom.sizes,
           {.norm = HeadOptions::Norm::layer,
            .norm_name = "transformer.ln_f",
            .embedding_name = "transformer.word_embeddings",
            .widens_logits = false});
  return graph;
}

}  // namespace steelyard::model
