// Mamba and Mamba-2 (transformers: modeling_mamba.py, modeling_mamba2.py) as their fast path runs
// them: the kernels of mamba_ssm, which take the mixer's weights from the convolution on.
#include <fmt/format.h>

#include "model/family.h"

namespace steelyard::model {

namespace {

struct Mamba {
  Sizes sizes;
  ScanShape scan;
  std::int64_t taps = 4;
  bool bias = false, conv_bias = true;
  bool wide_residual = true;
};

// No head of attention and no position: a sample may be as long as it likes.
Sizes mamba_sizes(ConfigReader& config, std::int64_t vocabulary, std::int64_t hidden,
                  std::int64_t layers, bool tied) {
  Sizes sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, vocabulary, kVocabularyLimits);
  sizes.hidden = config.whole({"hidden_size"}, hidden, kHiddenLimits);
  sizes.layers = config.whole({"num_hidden_layers"}, layers, kLayerLimits);
  sizes.heads = sizes.kv_heads = sizes.head_dim = 1;
  sizes.tied = config.flag({"tie_word_embeddings"}, tied);
  return sizes;
}

Mamba read_common(ConfigReader& config, const Sizes& sizes) {
  Mamba mamba;
  mamba.sizes = sizes;
  mamba.taps = config.whole({"conv_kernel"}, 4, {1, 64});
  mamba.bias = config.flag({"use_bias"}, false);
  mamba.conv_bias = config.flag({"use_conv_bias"}, true);
  mamba.wide_residual = config.flag({"residual_in_fp32"}, true);
  return mamba;
}

std::int64_t expanded(ConfigReader& config, std::int64_t hidden) {
  const double expand = config.real({"expand"}, 2.0, 0.01, 1024.0);
  return static_cast<std::int64_t>(expand * static_cast<double>(hidden));
}

ScanOptions options_of(const Mamba& mamba) {
  return {.project = "mixer.out_proj",
          .width = mamba.sizes.hidden,
          .taps = mamba.taps,
          .conv_bias = mamba.conv_bias,
          .project_bias = mamba.bias};
}

// MambaBlock.forward; the residual is widened, and so is the stream from the first layer on.
Block mamba_layer(const Graph& graph, const Mamba& mamba) {
  BlockBuilder block(graph, "backbone.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, mamba.sizes.hidden});
  TensorRef h = mamba.wide_residual ? block.narrow("narrow", x) : x;
  h = block.rms_norm("norm", h);
  const TensorRef residual = mamba.wide_residual ? block.widen("widen", x) : x;
  const ScanShape& scan = mamba.scan;
  ScanOptions options = options_of(mamba);
  if (scan.time_rank > 0) {
    h = block.linear("mixer.in_proj", h, 2 * scan.channels(), {.bias = mamba.bias});
    h = block.selective_scan("mixer", h, scan, options);
  } else {
    options.norm = "mixer.norm";
    const std::int64_t columns = 2 * scan.channels() + 2 * scan.groups * scan.state + scan.heads;
    h = block.linear("mixer.in_proj", h, columns, {.bias = mamba.bias});
    h = block.state_scan("mixer", h, scan, options);
  }
  return block.finish(block.add("residual", residual, h));
}

Graph finish(ConfigReader& config, const SampleShape& sample, const Mamba& mamba) {
  Graph graph = start_graph(config, mamba.sizes, sample);
  add_embed(graph, {.name = "backbone.embeddings"});
  graph.segments.push_back({mamba.sizes.layers, {mamba_layer(graph, mamba)}});
  add_head(graph, mamba.sizes,
           {.norm = HeadOptions::Norm::rms,
            .norm_name = "backbone.norm_f",
            .embedding_name = "backbone.embeddings",
            .narrows = mamba.wide_residual});
  return graph;
}

}  // namespace

Graph build_mamba(ConfigReader& config, const SampleShape& sample) {
  Mamba mamba = read_common(config, mamba_sizes(config, 50280, 768, 32, true));
  const std::int64_t hidden = mamba.sizes.hidden;
  mamba.scan.heads = config.whole({"intermediate_size"}, expanded(config, hidden), kWideLimits);
  mamba.scan.state = config.whole({"state_size"}, 16, kHiddenLimits);
  const std::int64_t usual = ceil_divide(hidden, 16);
  mamba.scan.time_rank = config.is_text("time_step_rank", "auto")
                             ? usual
                             : config.whole({"time_step_rank"}, usual, kHiddenLimits);
  return finish(config, sample, mamba);
}

Graph build_mamba2(ConfigReader& config, const SampleShape& sample) {
  Mamba mamba = read_common(config, mamba_sizes(config, 32768, 4096, 64, false));
  const std::int64_t inner = expanded(config, mamba.sizes.hidden);
  mamba.scan.heads = config.whole({"num_heads"}, 128, kHeadLimits);
  mamba.scan.head_dim = config.whole({"head_dim"}, 64, kHiddenLimits);
  mamba.scan.groups = config.whole({"n_groups"}, 8, kHeadLimits);
  mamba.scan.state = config.whole({"state_size"}, 128, kHiddenLimits);
  mamba.scan.chunk = config.whole({"chunk_size"}, 256, {1, 65'536});
  if (mamba.scan.channels() != inner) {
    config.reject("num_heads", fmt::format("{} heads of {}", mamba.scan.heads, mamba.scan.head_dim),
                  fmt::format("{} channels, expand x hidden_size", inner));
  }
  return finish(config, sample, mamba);
}

}  // namespace steelyard::model
