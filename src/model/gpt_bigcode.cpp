// StarCoder's first generation (transformers: modeling_gpt_bigcode.py): GPT-2 with ordinary linears
// and one head of keys and values for all queries.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Bigcode {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  double embedding_dropout = 0.0, residual_dropout = 0.0;
};

Bigcode read_bigcode(ConfigReader& config) {
  Bigcode code;
  Sizes& sizes = code.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, 50257, kVocabularyLimits);
  sizes.hidden = config.whole({"n_embd", "hidden_size"}, 768, kHiddenLimits);
  sizes.layers = config.whole({"n_layer", "num_hidden_layers"}, 12, kLayerLimits);
  sizes.heads = config.whole({"n_head", "num_attention_heads"}, 12, kHeadLimits);
  sizes.kv_heads = config.flag({"multi_query"}, true) ? 1 : sizes.heads;
  sizes.head_dim = divided_heads(config, sizes.hidden, sizes.heads, "n_embd", "n_head");
  sizes.max_sequence =
      config.whole({"n_positions", "max_position_embeddings"}, 1024, kPositionLimits);
  sizes.tied = config.flag({"tie_word_embeddings"}, true);

  code.attention = attention_part(sizes);
  code.attention.module = "attn";
  code.attention.out = "c_proj";
  code.attention.out_bias = true;
  code.attention.rotary_dims = 0;
  code.attention.shape.masks_by_where = true;
  code.attention.shape.returns_cache = config.flag({"use_cache"}, true);
  code.attention.shape.softmax_in_fp32 = config.flag({"attention_softmax_in_fp32"}, true);
  code.attention.shape.dropout = config.probability({"attn_pdrop"}, 0.1);
  code.mlp.intermediate = config.whole({"n_inner"}, 4 * sizes.hidden, kWideLimits);
  code.mlp.activation = config.activation({"activation_function"}, "gelu_pytorch_tanh");
  code.mlp.bias = true;
  code.mlp.up = "c_fc";
  code.mlp.down = "c_proj";
  code.mlp.act = "act";
  code.embedding_dropout = config.probability({"embd_pdrop"}, 0.1);
  code.residual_dropout = config.probability({"resid_pdrop"}, 0.1);
  return code;
}

Block bigcode_layer(const Graph& graph, const Bigcode& code) {
  const Sizes& sizes = code.sizes;
  const std::int64_t keys = sizes.kv_heads * sizes.head_dim;
  BlockBuilder block(graph, "transformer.h");
  const TensorRef x = block.input({graph.batch, graph.sequence, sizes.hidden});
  TensorRef h = block.layer_norm("ln_1", x);
  h = block.linear("attn.c_attn", h, sizes.hidden + 2 * keys, {.bias = true});
  const auto qkv = block.split("attn.split", h, {{"q", sizes.hidden}, {"k", keys}, {"v", keys}});
  const TensorRef q = block.heads("attn.q_heads", qkv[0], sizes.heads);
  const TensorRef k = block.heads("attn.k_heads", qkv[1], sizes.kv_heads);
  const TensorRef v = block.heads("attn.v_heads", qkv[2], sizes.kv_heads);
  h = add_attention_core(block, q, k, v, code.attention);
  h = block.dropout("attn.resid_dropout", h, code.residual_dropout);
  const TensorRef middle = block.add("residual_attention", h, x);
  h = block.layer_norm("ln_2", middle);
  h = add_plain_mlp(block, h, code.mlp);
  h = block.dropout("mlp.dropout", h, code.residual_dropout);
  return block.finish(block.add("residual_mlp", middle, h));
}

}  // namespace

Graph build_gpt_bigcode(ConfigReader& config, const SampleShape& sample) {
  const Bigcode code = read_bigcode(config);
  Graph graph = start_graph(config, code.sizes, sample);
  check_positions(config, graph, code.sizes.max_sequence, "n_positions");
  add_embed(graph, {.name = "transformer.wte",
                    .position_name = "transformer.wpe",
                    .positions = code.sizes.max_sequence,
                    .dropout = code.embedding_dropout});
  graph.segments.push_back({code.sizes.layers, {bigcode_layer(graph, code)}});
  add_head(graph, code.sizes,
           {.norm = HeadOptions::Norm::layer,
            .norm_name = "transformer.ln_f",
            .embedding_name = "transformer.wte",
            .widens_logits = false});
  return graph;
}

}  // namespace steelyard::model
