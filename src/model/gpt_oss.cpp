// gpt-oss (transformers 4.57: modeling_gpt_oss.py): LLaMA's layer with a learned sink in every
// row's softmax, windows in every other layer, and experts whose matrices and biases lie together.
// Its checkpoints hold the experts in MXFP4; training reads them as 16 bits.
#include <string>

#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

constexpr Limits kExpertLimits{1, 4096};

struct GptOss {
  Sizes sizes;
  AttentionPart attention;
  MixturePart mixture;
  std::int64_t window = 0;
};

Block gpt_oss_layer(const Graph& graph, const GptOss& model, bool windowed) {
  AttentionPart attention = model.attention;
  attention.shape.window = windowed ? model.window : 0;
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  // GptOssRMSNorm: (weight * hidden).to(input_dtype)
  TensorRef h = block.rms_norm("input_layernorm", x);
  block.last().scales_wide = true;
  h = add_attention(block, h, attention);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.rms_norm("post_attention_layernorm", middle);
  block.last().scales_wide = true;
  h = add_mixture(block, h, model.mixture);
  return block.finish(block.add("residual_mlp", middle, h));
}

void read_mixture(ConfigReader& config, GptOss& model) {
  MixturePart& part = model.mixture;
  part.module = "mlp";
  part.router = "router";
  part.activation = config.activation({"hidden_act"}, "silu");
  MixtureShape& shape = part.shape;
  shape.experts = config.whole({"num_local_experts"}, 128, kExpertLimits);
  shape.chosen = config.whole({"num_experts_per_tok"}, 4, kExpertLimits);
  shape.intermediate = config.whole({"intermediate_size"}, 2880, kWideLimits);
  shape.routing = Routing::softmax_of_chosen;
  shape.code = ExpertCode::selected;
  shape.router_bias = true;
  if (shape.chosen > shape.experts) {
    config.reject("num_experts_per_tok", std::to_string(shape.chosen),
                  "at most the " + std::to_string(shape.experts) + " of num_local_experts");
  }
  const std::int64_t hidden = model.sizes.hidden;
  const std::int64_t wide = shape.intermediate;
  part.held = {
      {"mlp.experts.gate_up_proj", {shape.experts, hidden, 2 * wide}},
      {"mlp.experts.gate_up_proj_bias", {shape.experts, 2 * wide}, WeightRole::bias},
      {"mlp.experts.down_proj", {shape.experts, wide, hidden}},
      {"mlp.experts.down_proj_bias", {shape.experts, hidden}, WeightRole::bias},
  };
}

}  // namespace

Graph build_gpt_oss(ConfigReader& config, const SampleShape& sample) {
  GptOss model;
  model.sizes = read_sizes(config, {.vocabulary = 201088,
                                    .hidden = 2880,
                                    .layers = 36,
                                    .heads = 64,
                                    .kv_heads = 8,
                                    .head_dim = 64,
                                    .max_sequence = 131072,
                                    .tied = false});
  model.attention = attention_part(model.sizes);
  model.attention.qkv_bias = model.attention.out_bias = config.flag({"attention_bias"}, true);
  model.attention.sink = "self_attn.sinks";
  model.attention.turns_halves = true;
  model.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  model.attention.shape.softmax_in_fp32 = false;
  model.window = config.whole({"sliding_window"}, 128, kWindowLimits);
  read_mixture(config, model);
  const std::vector<int> kinds =
      window_kinds(config, model.sizes.layers, [](std::int64_t layer) { return layer % 2 == 0; });
  Graph graph = start_graph(config, model.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = model.sizes.head_dim / 2,
                    .rotary_name = "model.rotary_emb"});
  add_layers(graph, kinds, [&](int kind) { return gpt_oss_layer(graph, model, kind == 1); });
  add_head(graph, model.sizes,
           {.norm = HeadOptions::Norm::rms_scaled_wide,
            .norm_name = "model.norm",
            .embedding_name = "model.embed_tokens"});
  return graph;
}

}  // namespace steelyard::model
