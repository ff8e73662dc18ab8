// Nemotron-H (modeling_nemotron_h.py beside its checkpoints): each layer is one mixer, by a letter
// of hybrid_override_pattern: M Mamba-2, * attention without positions, - a feed-forward network.
#include <fmt/format.h>

#include <map>
#include <string>
#include <vector>

#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct NemotronH {
  Sizes sizes;
  ScanShape scan;
  std::int64_t taps = 4;
  bool bias = false, conv_bias = true;
  bool wide_residual = false;
  AttentionPart attention;
  MlpPart mlp;
};

TensorRef mixer_of(BlockBuilder& block, const NemotronH& model, int kind, TensorRef h) {
  if (kind == '*') return add_attention(block, h, model.attention);
  if (kind == '-') return add_plain_mlp(block, h, model.mlp);
  const ScanShape& scan = model.scan;
  const std::int64_t columns = 2 * scan.channels() + 2 * scan.groups * scan.state + scan.heads;
  h = block.linear("mixer.in_proj", h, columns, {.bias = model.bias});
  return block.state_scan("mixer", h, scan,
                          {.norm = "mixer.norm",
                           .project = "mixer.out_proj",
                           .width = model.sizes.hidden,
                           .taps = model.taps,
                           .conv_bias = model.conv_bias,
                           .project_bias = model.bias});
}

Block layer_of(const Graph& graph, const NemotronH& model, int kind) {
  BlockBuilder block(graph, "backbone.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  TensorRef h = block.narrow("narrow", x);
  h = block.rms_norm("norm", h);
  const TensorRef residual = model.wide_residual ? block.widen("widen", x) : x;
  h = mixer_of(block, model, kind, h);
  return block.finish(block.add("residual", residual, h));
}

// The letters, or the list of words that transformers 5 writes for them.
std::string pattern_of(ConfigReader& config) {
  static const std::map<std::string, char, std::less<>> kLetters = {
      {"mamba", 'M'},     {"linear_attention", 'M'},
      {"attention", '*'}, {"full_attention", '*'},
      {"mlp", '-'},       {"moe", 'E'}};
  if (config.has("hybrid_override_pattern")) return config.text({"hybrid_override_pattern"}, "");
  std::string pattern;
  for (const std::string& word : config.text_list({"layers_block_type"})) {
    const auto letter = kLetters.find(word);
    if (letter == kLetters.end()) {
      config.reject("layers_block_type", "\"" + word + "\"",
                    "linear_attention, full_attention, mlp or moe");
      return pattern;
    }
    pattern += letter->second;
  }
  return pattern;
}

std::vector<int> kinds_of(ConfigReader& config, const std::string& pattern, std::int64_t layers) {
  std::vector<int> kinds(pattern.begin(), pattern.end());
  if (std::ssize(kinds) != layers || pattern.find_first_not_of("M*-") != std::string::npos) {
    config.reject(
        "hybrid_override_pattern", pattern.empty() ? "nothing" : pattern,
        fmt::format("M, * or - for each of the {} layers", layers),
        pattern.find('E') != std::string::npos ? "experts: not built in this version" : "");
    return std::vector<int>(static_cast<std::size_t>(layers), 'M');
  }
  return kinds;
}

}  // namespace

Graph build_nemotron_h(ConfigReader& config, const SampleShape& sample) {
  NemotronH model;
  model.sizes = read_sizes(config, {.vocabulary = 131072,
                                    .hidden = 4096,
                                    .layers = 52,
                                    .heads = 32,
                                    .kv_heads = 8,
                                    .head_dim = 128,
                                    .max_sequence = 4096,
                                    .tied = false});
  if (config.has("attention_head_dim")) {
    model.sizes.head_dim = config.whole({"attention_head_dim"}, 128, kHiddenLimits);
  }
  model.scan.heads = config.whole({"mamba_num_heads"}, 128, kHeadLimits);
  model.scan.head_dim = config.whole({"mamba_head_dim"}, 64, kHiddenLimits);
  model.scan.groups = config.whole({"n_groups"}, 8, kHeadLimits);
  model.scan.state = config.whole({"ssm_state_size"}, 128, kHiddenLimits);
  model.scan.chunk = config.whole({"chunk_size"}, 256, {1, 65'536});
  model.taps = config.whole({"conv_kernel"}, 4, {1, 64});
  model.bias = config.flag({"use_bias"}, false);
  model.conv_bias = config.flag({"use_conv_bias"}, true);
  model.wide_residual = config.flag({"residual_in_fp32"}, false);
  model.attention = attention_part(model.sizes);
  model.attention.module = "mixer";
  model.attention.rotary_dims = 0;
  model.attention.qkv_bias = model.attention.out_bias = config.flag({"attention_bias"}, false);
  model.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  model.mlp.module = "mixer";
  model.mlp.up = "up_proj";
  model.mlp.down = "down_proj";
  model.mlp.bias = config.flag({"mlp_bias"}, false);
  model.mlp.intermediate = config.whole({"intermediate_size"}, 21504, kWideLimits);
  model.mlp.activation = ActivationKind::squared_relu;
  const std::string pattern = pattern_of(config);
  // Their list says how many layers there are.
  if (config.has("layers_block_type")) model.sizes.layers = std::ssize(pattern);
  const std::vector<int> kinds = kinds_of(config, pattern, model.sizes.layers);
  Graph graph = start_graph(config, model.sizes, sample);
  add_embed(graph, {.name = "backbone.embeddings"});
  add_layers(graph, kinds, [&](int kind) { return layer_of(graph, model, kind); });
  add_head(graph, model.sizes,
           {.norm = HeadOptions::Norm::rms,
            .norm_name = "backbone.norm_f",
            .embedding_name = "backbone.embeddings",
            .narrows = true});
  return graph;
}

}  // namespace steelyard::model
