// Mixtral (transformers 4: modeling_mixtral.py): Mistral's layer with a mixture of experts for its
// feed-forward network.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

TensorRef add_mixture(BlockBuilder& block, TensorRef x, const MixturePart& part) {
  const auto [weights, chosen] = block.router(part.module + "." + part.router, x, part.shape);
  if (part.shape.code == ExpertCode::parallel) {
    return block.parallel_experts(part.module, x, weights, chosen, part.shape, part.activation);
  }
  const std::string module = part.module + ".experts";
  const ExpertCode code = part.shape.code;
  // What the code reads beside tokens and weights: the choice, or each expert's tokens.
  std::vector<TensorRef> read = {chosen};
  if (code != ExpertCode::sorted && code != ExpertCode::dense) {
    read = block.expert_assignment(part.module + ".assignment", chosen, part.shape);
  }
  if (part.shape.stacked()) {
    return block.stacked_experts(module, x, weights, read, part.shape, part.activation, part.held);
  }
  return block.experts(module, x, weights, read, part.shape, part.activation, part.names);
}

namespace {

constexpr Limits kExpertLimits{1, 1024};

Block mixtral_layer(const Graph& graph, const Sizes& sizes, const AttentionPart& attention,
                    const MixturePart& mixture) {
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, sizes.hidden});
  TensorRef h = add_attention(block, block.rms_norm("input_layernorm", x), attention);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.rms_norm("post_attention_layernorm", middle);
  h = add_mixture(block, h, mixture);
  return block.finish(block.add("residual_mlp", middle, h));
}

}  // namespace

Graph build_mixtral(ConfigReader& config, const SampleShape& sample) {
  const Sizes sizes = read_sizes(config, {.vocabulary = 32000,
                                          .hidden = 4096,
                                          .layers = 32,
                                          .heads = 32,
                                          .kv_heads = 8,
                                          .head_dim = {},
                                          .max_sequence = 131072,
                                          .tied = false});
  AttentionPart attention = attention_part(sizes);
  attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  attention.shape.repeats_for_flash = true;
  attention.shape.window = config.optional_whole({"sliding_window"}, kWindowLimits).value_or(0);
  MixturePart mixture;
  mixture.shape.intermediate = config.whole({"intermediate_size"}, 14336, kWideLimits);
  mixture.shape.experts = config.whole({"num_local_experts"}, 8, kExpertLimits);
  mixture.shape.chosen = config.whole({"num_experts_per_tok"}, 2, kExpertLimits);
  mixture.activation = config.activation({"hidden_act"}, "silu");
  if (mixture.shape.chosen > mixture.shape.experts) {
    config.reject("num_experts_per_tok", std::to_string(mixture.shape.chosen),
                  "at most the " + std::to_string(mixture.shape.experts) + " of num_local_experts");
  }
  Graph graph = start_graph(config, sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = sizes.head_dim,
                    .rotary_name = "model.rotary_emb"});
  graph.segments.push_back({sizes.layers, {mixtral_layer(graph, sizes, attention, mixture)}});
  add_head(graph, sizes,
           {.norm = HeadOptions::Norm::rms,
            .norm_name = "model.norm",
            .embedding_name = "model.embed_tokens"});
  return graph;
}

}  // namespace steelyard::model
