// Falcon-H1 (transformers 4.57: modeling_falcon_h1.py): Mamba-2 and attention side by side in every
// layer, behind one norm, and factors (muP) around everything. As its fast path runs it.
#include <fmt/format.h>

#include <vector>

#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

constexpr double kLargestScale = 1e6;

struct FalconH1 {
  Sizes sizes;
  AttentionPart attention;
  ScanShape scan;
  std::int64_t taps = 4, inner = 0;
  bool conv_bias = true, in_bias = false, out_bias = false, norms = false;
  ActivationKind activation = ActivationKind::silu;
};

std::int64_t columns_of(const ScanShape& scan) {
  return 2 * scan.channels() + 2 * scan.groups * scan.state + scan.heads;
}

// Products with a number that stands in the configuration: the code multiplies by 1 too.
TensorRef add_mamba(BlockBuilder& block, TensorRef x, const FalconH1& model) {
  const ScanShape& scan = model.scan;
  const std::int64_t columns = columns_of(scan);
  TensorRef h = block.scale("mamba.ssm_in_multiplier", x, 1.0);
  h = block.linear("mamba.in_proj", h, columns, {.bias = model.in_bias});
  h = block.scale("mamba.mup_vector", h, 1.0);
  h = block.state_scan("mamba", h, scan,
                       {.norm = model.norms ? "mamba.norm" : "",
                        .project = "mamba.out_proj",
                        .width = model.sizes.hidden,
                        .taps = model.taps,
                        .conv_bias = model.conv_bias,
                        .project_bias = model.out_bias});
  return block.scale("ssm_out_multiplier", h, 1.0);
}

TensorRef add_mlp(BlockBuilder& block, TensorRef x, const FalconH1& model) {
  TensorRef gate = block.linear("feed_forward.gate_proj", x, model.inner);
  gate = block.scale("feed_forward.gate_multiplier", gate, 1.0);
  const TensorRef up = block.linear("feed_forward.up_proj", x, model.inner);
  TensorRef h = block.gated_activation("feed_forward.act_fn", gate, up, model.activation);
  h = block.linear("feed_forward.down_proj", h, model.sizes.hidden);
  return block.scale("feed_forward.down_multiplier", h, 1.0);
}

Block falcon_h1_layer(const Graph& graph, const FalconH1& model) {
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  TensorRef h = block.rms_norm("input_layernorm", x);
  const TensorRef scanned = add_mamba(block, h, model);
  h = block.scale("attention_in_multiplier", h, 1.0);
  h = add_attention(block, h, model.attention);
  h = block.scale("attention_out_multiplier", h, 1.0);
  const TensorRef middle = block.add("residual_mixers", x, block.add("mixers", scanned, h));
  h = block.rms_norm("pre_ff_layernorm", middle);
  Block layer = block.finish(block.add("residual_mlp", middle, add_mlp(block, h, model)));
  layer.buffers.push_back({"mamba.mup_vector", {1, 1, columns_of(model.scan)}, ElementKind::real});
  return layer;
}

void read_mamba(ConfigReader& config, FalconH1& model) {
  const double expand = config.real({"mamba_expand"}, 2.0, 0.01, 1024.0);
  const auto expanded = static_cast<std::int64_t>(expand * static_cast<double>(model.sizes.hidden));
  const bool null = config.is_null("mamba_d_ssm");
  const std::int64_t inner = config.whole({"mamba_d_ssm"}, null ? expanded : 1024, kWideLimits);
  ScanShape& scan = model.scan;
  scan.heads = config.whole({"mamba_n_heads"}, 128, kHeadLimits);
  const std::int64_t usual = std::max<std::int64_t>(1, inner / scan.heads);
  scan.head_dim = config.is_text("mamba_d_head", "auto")
                      ? usual
                      : config.whole({"mamba_d_head"}, usual, kHiddenLimits);
  if (scan.channels() != inner) {
    config.reject("mamba_n_heads", fmt::format("{} heads of {}", scan.heads, scan.head_dim),
                  fmt::format("{} channels, mamba_d_ssm", inner));
  }
  scan.groups = config.whole({"mamba_n_groups"}, 1, kHeadLimits);
  scan.state = config.whole({"mamba_d_state"}, 256, kHiddenLimits);
  scan.chunk = config.whole({"mamba_chunk_size"}, 256, {1, 65'536});
  model.taps = config.whole({"mamba_d_conv"}, 4, {1, 64});
  model.conv_bias = config.flag({"mamba_conv_bias"}, true);
  model.in_bias = config.flag({"mamba_proj_bias"}, false);
  model.out_bias = config.flag({"projectors_bias"}, false);
  model.norms = config.flag({"mamba_rms_norm"}, false);
}

}  // namespace

Graph build_falcon_h1(ConfigReader& config, const SampleShape& sample) {
  FalconH1 model;
  model.sizes = read_sizes(config, {.vocabulary = 128000,
                                    .hidden = 4096,
                                    .layers = 32,
                                    .heads = 32,
                                    .kv_heads = 8,
                                    .head_dim = {},
                                    .max_sequence = 8192,
                                    .tied = false});
  model.attention = attention_part(model.sizes);
  model.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  model.attention.key_scale = config.real({"key_multiplier"}, 1.0, -kLargestScale, kLargestScale);
  model.inner = config.whole({"intermediate_size"}, 14336, kWideLimits);
  model.activation = config.activation({"hidden_act"}, "silu");
  read_mamba(config, model);
  Graph graph = start_graph(config, model.sizes, sample);
  add_embed(graph,
            {.name = "model.embed_tokens",
             .scale = config.real({"embedding_multiplier"}, 1.0, -kLargestScale, kLargestScale),
             .rotary_dims = model.sizes.head_dim,
             .rotary_name = "model.rotary_emb"});
  graph.segments.push_back({model.sizes.layers, {falcon_h1_layer(graph, model)}});
  add_head(graph, model.sizes,
           {.norm = HeadOptions::Norm::rms,
            .norm_name = "model.final_layernorm",
            .embedding_name = "model.embed_tokens",
            .scale = config.real({"lm_head_multiplier"}, 1.0, -kLargestScale, kLargestScale)});
  return graph;
}

}  // namespace steelyard::model
