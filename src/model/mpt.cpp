// MPT, as transformers defines it (modeling_mpt.py) and as llm-foundry trains it
// (llmfoundry/models/mpt). Both read the same keys; transformers' class ignores those that the
// published models do not use (learned_pos_emb, no_bias = false, grouped attention), llm-foundry
// follows them, and so does this. ALiBi switches learned positions off (llm-foundry: "alibi is
// turned on, setting learned_pos_emb to False").
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

// Understood, but not built.
void refuse(ConfigReader& table, const std::string& key, std::string found, std::string accepted) {
  table.reject(Error{.code = ErrorCode::not_supported,
                     .subject = table.subject_of(key),
                     .found = std::move(found),
                     .accepted = std::move(accepted),
                     .hint = "this variant of MPT is not built yet"});
}

struct Mpt {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  bool bias = false;
  bool learned_positions = false;
  double embedding_dropout = 0.0, residual_dropout = 0.0;
};

std::int64_t mpt_kv_heads(ConfigReader& attention, std::int64_t heads) {
  const std::string type = attention.text({"attn_type"}, "multihead_attention");
  if (type == "multihead_attention") return heads;
  if (type == "multiquery_attention") return 1;
  if (type == "grouped_query_attention") return attention.whole({"kv_n_heads"}, heads, kHeadLimits);
  attention.reject("attn_type", "\"" + type + "\"",
                   "multihead_attention, multiquery_attention or grouped_query_attention");
  return heads;
}

void read_mpt_sizes(ConfigReader& config, Sizes& sizes) {
  sizes.vocabulary = config.whole({"vocab_size"}, 50368, kVocabularyLimits);
  sizes.hidden = config.whole({"d_model", "hidden_size"}, 2048, kHiddenLimits);
  sizes.layers = config.whole({"n_layers", "num_hidden_layers"}, 24, kLayerLimits);
  sizes.heads = config.whole({"n_heads", "num_attention_heads"}, 16, kHeadLimits);
  sizes.head_dim = divided_heads(config, sizes.hidden, sizes.heads, "d_model", "n_heads");
  sizes.max_sequence = config.whole({"max_seq_len"}, 2048, kPositionLimits);
  sizes.tied = config.flag({"tie_word_embeddings"}, true);
}

void read_mpt_attention(ConfigReader& config, Mpt& mpt) {
  ConfigReader table = config.table("attn_config");
  mpt.sizes.kv_heads = mpt_kv_heads(table, mpt.sizes.heads);
  const bool alibi = table.flag({"alibi"}, true);
  const bool rope = table.flag({"rope"}, false);
  mpt.learned_positions = !alibi && !rope && config.flag({"learned_pos_emb"}, true);
  mpt.attention = attention_part(mpt.sizes);
  mpt.attention.module = "attn";
  mpt.attention.out = "out_proj";
  mpt.attention.out_bias = mpt.bias;
  mpt.attention.rotary_dims = rope ? mpt.sizes.head_dim : 0;
  mpt.attention.shape.alibi = alibi;
  mpt.attention.shape.masks_by_where = true;
  mpt.attention.shape.dropout = table.probability({"attn_pdrop"}, 0.0);
  for (const char* key : {"qk_ln", "qk_gn"}) {
    if (table.flag({key}, false)) {
      refuse(table, key, "true", "false");
    }
  }
  config.adopt(table);
  check_kv_heads(config, mpt.sizes, "attn_config.kv_n_heads");
}

void read_mpt_mlp(ConfigReader& config, Mpt& mpt) {
  constexpr double kLargestRatio = 64.0;
  const double ratio = config.real({"expansion_ratio"}, 4.0, 1.0 / kLargestRatio, kLargestRatio);
  mpt.mlp.intermediate = static_cast<std::int64_t>(static_cast<double>(mpt.sizes.hidden) * ratio);
  ConfigReader table = config.table("ffn_config");
  const std::string type = table.text({"ffn_type"}, "mptmlp");
  if (type != "mptmlp") refuse(table, "ffn_type", "\"" + type + "\"", "mptmlp");
  mpt.mlp.intermediate = table.whole({"ffn_hidden_size"}, mpt.mlp.intermediate, kWideLimits);
  config.adopt(table);
  if (mpt.mlp.intermediate < 1) {
    config.reject("expansion_ratio", std::to_string(ratio), "a ratio that leaves a width");
  }
  mpt.mlp.module = "ffn";
  mpt.mlp.act = "act";
  mpt.mlp.activation = ActivationKind::gelu;
  mpt.mlp.bias = mpt.bias;
}

Block mpt_layer(const Graph& graph, const Mpt& mpt) {
  const Sizes& sizes = mpt.sizes;
  const std::int64_t keys = sizes.kv_heads * sizes.head_dim;
  const LayerNormOptions norm{.weight = true, .bias = mpt.bias};
  BlockBuilder block(graph, "transformer.blocks");
  const TensorRef x = block.input({graph.batch, graph.sequence, sizes.hidden});
  TensorRef h = block.layer_norm("norm_1", x, norm);
  h = block.linear("attn.Wqkv", h, sizes.hidden + 2 * keys, {.bias = mpt.bias});
  const auto qkv = block.split("attn.split", h, {{"q", sizes.hidden}, {"k", keys}, {"v", keys}});
  const TensorRef q = block.heads("attn.q_heads", qkv[0], sizes.heads);
  const TensorRef k = block.heads("attn.k_heads", qkv[1], sizes.kv_heads);
  const TensorRef v = block.heads("attn.v_heads", qkv[2], sizes.kv_heads);
  h = add_attention_core(block, q, k, v, mpt.attention);
  h = block.dropout("resid_attn_dropout", h, mpt.residual_dropout);
  const TensorRef middle = block.add("residual_attention", h, x);
  h = block.layer_norm("norm_2", middle, norm);
  h = add_plain_mlp(block, h, mpt.mlp);
  h = block.dropout("resid_ffn_dropout", h, mpt.residual_dropout);
  return block.finish(block.add("residual_mlp", h, middle));
}

}  // namespace

Graph build_mpt(ConfigReader& config, const SampleShape& sample) {
  Mpt mpt;
  read_mpt_sizes(config, mpt.sizes);
  mpt.bias = !config.flag({"no_bias"}, true);
  mpt.residual_dropout = config.probability({"resid_pdrop"}, 0.0);
  mpt.embedding_dropout = config.probability({"emb_pdrop"}, 0.0);
  read_mpt_attention(config, mpt);
  read_mpt_mlp(config, mpt);

  Graph graph = start_graph(config, mpt.sizes, sample);
  if (mpt.learned_positions) {
    check_positions(config, graph, mpt.sizes.max_sequence, "max_seq_len");
  }
  add_embed(graph, {.name = "transformer.wte",
                    .position_name = mpt.learned_positions ? "transformer.wpe" : "",
                    .positions = mpt.sizes.max_sequence,
                    .rotary_dims = mpt.attention.rotary_dims,
                    .rotary_name = "transformer.rotary_embedding",
                    .dropout = mpt.embedding_dropout});
  graph.segments.push_back({mpt.sizes.layers, {mpt_layer(graph, mpt)}});
  using Norm = HeadOptions::Norm;
  add_head(graph, mpt.sizes,
           {.norm = mpt.bias ? Norm::layer : Norm::layer_without_bias,
            .norm_name = "transformer.norm_f",
            .embedding_name = "transformer.wte",
            .widens_logits = false});
  return graph;
}

}  // namespace steelyard::model
