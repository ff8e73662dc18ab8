// Jamba (transformers 4.57: modeling_jamba.py): Mamba-1 with norms of time steps, B and C, and in
// every n-th layer attention without positions; the feed-forward network of every other layer is a
// mixture. As its fast path runs it, with the kernels of mamba_ssm and causal-conv1d.
#include <fmt/format.h>

#include <string>
#include <vector>

#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

constexpr Limits kExpertLimits{1, 4096};
constexpr int kAttention = 1, kMixture = 2;

struct Jamba {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  MixturePart mixture;
  ScanShape scan;
  std::int64_t taps = 4;
  bool bias = false, conv_bias = true;
};

TensorRef add_mamba(BlockBuilder& block, TensorRef x, const Jamba& jamba) {
  const TensorRef h =
      block.linear("mamba.in_proj", x, 2 * jamba.scan.channels(), {.bias = jamba.bias});
  return block.selective_scan("mamba", h, jamba.scan,
                              {.project = "mamba.out_proj",
                               .width = jamba.sizes.hidden,
                               .taps = jamba.taps,
                               .conv_bias = jamba.conv_bias,
                               .project_bias = jamba.bias});
}

Block jamba_layer(const Graph& graph, const Jamba& jamba, int kind) {
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, jamba.sizes.hidden});
  TensorRef h = block.rms_norm("input_layernorm", x);
  h = (kind & kAttention) != 0 ? add_attention(block, h, jamba.attention)
                               : add_mamba(block, h, jamba);
  const TensorRef middle = block.add("residual_mixer", x, h);
  h = block.rms_norm("pre_ff_layernorm", middle);
  h = (kind & kMixture) != 0 ? add_mixture(block, h, jamba.mixture)
                             : add_gated_mlp(block, h, jamba.mlp);
  return block.finish(block.add("residual_mlp", middle, h));
}

void read_mamba(ConfigReader& config, Jamba& jamba) {
  const std::int64_t hidden = jamba.sizes.hidden;
  jamba.scan.apart = true;
  jamba.scan.heads = hidden * config.whole({"mamba_expand"}, 2, {1, 1024});
  jamba.scan.state = config.whole({"mamba_d_state"}, 16, kHiddenLimits);
  const std::int64_t usual = ceil_divide(hidden, 16);
  jamba.scan.time_rank = config.is_text("mamba_dt_rank", "auto")
                             ? usual
                             : config.whole({"mamba_dt_rank"}, usual, kHiddenLimits);
  jamba.taps = config.whole({"mamba_d_conv"}, 4, {1, 64});
  jamba.conv_bias = config.flag({"mamba_conv_bias"}, true);
  jamba.bias = config.flag({"mamba_proj_bias"}, false);
}

void read_mixture(ConfigReader& config, Jamba& jamba) {
  MixturePart& part = jamba.mixture;
  part.module = "feed_forward";
  part.router = "router";
  part.names = {.gate = "gate_proj", .down = "down_proj", .up = "up_proj"};
  part.activation = jamba.mlp.activation;
  part.shape.experts = config.whole({"num_experts"}, 16, kExpertLimits);
  part.shape.chosen = config.whole({"num_experts_per_tok"}, 2, kExpertLimits);
  part.shape.intermediate = jamba.mlp.intermediate;
  part.shape.routing = Routing::softmax;
  if (part.shape.experts > 1 && part.shape.chosen > part.shape.experts) {
    config.reject("num_experts_per_tok", std::to_string(part.shape.chosen),
                  "at most the " + std::to_string(part.shape.experts) + " of num_experts");
  }
}

// Every n-th layer from an offset on.
struct Turn {
  std::int64_t period = 1, offset = 0;
  [[nodiscard]] bool comes(std::int64_t layer) const { return layer % period == offset; }
};

Turn read_turn(ConfigReader& config, const std::string& what, std::int64_t period,
               std::int64_t offset) {
  Turn turn;
  turn.period = config.whole({what + "_layer_period"}, period, kLayerLimits);
  turn.offset = config.whole({what + "_layer_offset"}, offset, {0, kLayerLimits.most});
  if (turn.offset >= turn.period) {
    config.reject(what + "_layer_offset", std::to_string(turn.offset),
                  fmt::format("less than {}_layer_period, {}", what, turn.period));
  }
  return turn;
}

}  // namespace

Graph build_jamba(ConfigReader& config, const SampleShape& sample) {
  Jamba jamba;
  jamba.sizes = read_sizes(config, {.vocabulary = 65536,
                                    .hidden = 4096,
                                    .layers = 32,
                                    .heads = 32,
                                    .kv_heads = 8,
                                    .head_dim = {},
                                    .max_sequence = 262144,
                                    .tied = false});
  jamba.attention = attention_part(jamba.sizes);
  jamba.attention.rotary_dims = 0;
  jamba.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  jamba.mlp.module = "feed_forward";
  jamba.mlp.intermediate = config.whole({"intermediate_size"}, 14336, kWideLimits);
  jamba.mlp.activation = config.activation({"hidden_act"}, "silu");
  read_mamba(config, jamba);
  read_mixture(config, jamba);
  const Turn attention = read_turn(config, "attn", 8, 4);
  const Turn experts = read_turn(config, "expert", 2, 1);
  std::vector<int> kinds;
  for (std::int64_t i = 0; i < jamba.sizes.layers; ++i) {
    const bool mixture = jamba.mixture.shape.experts > 1 && experts.comes(i);
    kinds.push_back((attention.comes(i) ? kAttention : 0) | (mixture ? kMixture : 0));
  }
  Graph graph = start_graph(config, jamba.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens"});
  add_layers(graph, kinds, [&](int kind) { return jamba_layer(graph, jamba, kind); });
  add_head(graph, jamba.sizes,
           {.norm = HeadOptions::Norm::rms,
            .norm_name = "model.final_layernorm",
            .embedding_name = "model.embed_tokens"});
  return graph;
}

}  // namespace steelyard::model
