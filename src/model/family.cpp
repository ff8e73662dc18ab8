#include "model/family.h"

#include <fmt/format.h>

#include <algorithm>

namespace steelyard::model {

namespace {

constexpr std::int64_t kDefaultSequence = 2048;  // SampleShape::sequence of 0 takes at most this

// The shortest cycle of at most kLongestCycle kinds that the layers repeat; 0 when there is none.
std::size_t cycle_of(const std::vector<int>& kinds) {
  constexpr std::size_t kLongestCycle = 8;
  for (std::size_t period = 1; period <= std::min(kLongestCycle, kinds.size()); ++period) {
    bool repeats = true;
    for (std::size_t i = period; i < kinds.size() && repeats; ++i) {
      repeats = kinds[i] == kinds[i - period];
    }
    if (repeats && kinds.size() >= 2 * period) return period;
  }
  return 0;
}

Segment segment_of(const std::vector<int>& kinds, std::size_t first, std::size_t count,
                   std::int64_t repeat, const std::function<Block(int)>& block_of) {
  Segment segment;
  segment.repeat = repeat;
  for (std::size_t i = first; i < first + count; ++i) segment.blocks.push_back(block_of(kinds[i]));
  return segment;
}

}  // namespace

std::int64_t divided_heads(ConfigReader& config, std::int64_t hidden, std::int64_t heads,
                           std::string_view hidden_key, std::string_view heads_key) {
  if (hidden % heads != 0) {
    config.reject(heads_key, fmt::format("{}", heads),
                  fmt::format("a divisor of {} = {}", hidden_key, hidden));
    return 1;
  }
  return hidden / heads;
}

void check_kv_heads(ConfigReader& config, const Sizes& sizes, std::string_view key) {
  if (sizes.kv_heads <= sizes.heads && sizes.heads % sizes.kv_heads == 0) return;
  config.reject(key, fmt::format("{}", sizes.kv_heads),
                fmt::format("a divisor of the {} attention heads", sizes.heads));
}

Sizes read_sizes(ConfigReader& config, const SizeDefaults& defaults) {
  Sizes sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, defaults.vocabulary, kVocabularyLimits);
  sizes.hidden = config.whole({"hidden_size"}, defaults.hidden, kHiddenLimits);
  sizes.layers = config.whole({"num_hidden_layers"}, defaults.layers, kLayerLimits);
  sizes.heads = config.whole({"num_attention_heads"}, defaults.heads, kHeadLimits);
  // Absent takes the class's default, null means "as many as heads".
  const bool as_heads = !defaults.kv_heads || config.is_null("num_key_value_heads");
  sizes.kv_heads = config.whole({"num_key_value_heads"},
                                as_heads ? sizes.heads : *defaults.kv_heads, kHeadLimits);
  check_kv_heads(config, sizes, "num_key_value_heads");
  if (config.has("head_dim")) {
    sizes.head_dim = config.whole({"head_dim"}, 1, kHiddenLimits);
  } else if (defaults.head_dim && !config.is_null("head_dim")) {
    sizes.head_dim = *defaults.head_dim;
  } else {
    sizes.head_dim =
        divided_heads(config, sizes.hidden, sizes.heads, "hidden_size", "num_attention_heads");
  }
  sizes.max_sequence =
      config.whole({"max_position_embeddings"}, defaults.max_sequence, kPositionLimits);
  sizes.tied = config.flag({"tie_word_embeddings"}, defaults.tied);
  return sizes;
}

std::int64_t rotary_dims_of(ConfigReader& config, std::int64_t head_dim, double default_factor) {
  double factor = default_factor;
  // transformers 5 moved the key into rope_parameters; files of both kinds are about.
  ConfigReader inner = config.table("rope_parameters");
  factor = inner.real({"partial_rotary_factor"}, factor, 0.0, 1.0);
  config.adopt(inner);
  factor = config.real({"partial_rotary_factor", "rope_pct", "rotary_pct"}, factor, 0.0, 1.0);
  return static_cast<std::int64_t>(static_cast<double>(head_dim) * factor);
}

Graph start_graph(const ConfigReader& config, const Sizes& sizes, const SampleShape& sample) {
  Graph graph;
  graph.name = config.name();
  graph.batch = sample.batch;
  const std::int64_t longest = sizes.max_sequence > 0 ? sizes.max_sequence : kDefaultSequence;
  graph.sequence = sample.sequence > 0 ? sample.sequence : std::min(longest, kDefaultSequence);
  graph.vocabulary = sizes.vocabulary;
  graph.hidden = sizes.hidden;
  graph.layers = sizes.layers;
  graph.max_sequence = sizes.max_sequence;
  graph.shared.push_back({"input_ids", {graph.batch, graph.sequence}, ElementKind::token_ids});
  graph.batch_tensors = graph.shared;
  graph.batch_tensors.push_back({"labels", {graph.batch, graph.sequence}, ElementKind::token_ids});
  return graph;
}

void check_positions(ConfigReader& config, const Graph& graph, std::int64_t positions,
                     std::string_view key) {
  if (graph.sequence <= positions) return;
  config.reject(Error{
      .code = ErrorCode::impossible_combination,
      .subject = config.subject_of(key),
      .found =
          fmt::format("{} learned positions for samples of {} tokens", positions, graph.sequence),
      .accepted = fmt::format("at least {}", graph.sequence),
      .hint = fmt::format("use a sequence of at most {} tokens, or set {}", positions, key),
      .file = {},
      .line = {}});
}

void add_rotary_table(Graph& graph, BlockBuilder& block, const std::string& name,
                      std::int64_t dims) {
  graph.shared.push_back({"cos", {1, graph.sequence, dims}, ElementKind::real});
  graph.shared.push_back({"sin", {1, graph.sequence, dims}, ElementKind::real});
  block.rotary_table(name, kCos, kSin);
}

void add_embed(Graph& graph, const EmbedOptions& options) {
  BlockBuilder block(graph, "embed");
  TensorRef x = block.embedding(options.name, kTokenIds, graph.vocabulary, graph.hidden);
  if (options.scale) x = block.scale(options.name + ".scale", x, *options.scale);
  if (!options.position_name.empty()) {
    const TensorRef positions =
        block.position_embedding(options.position_name, options.positions, graph.hidden);
    x = block.add(options.name + ".add_positions", x, positions);
  }
  x = block.dropout(options.name + ".dropout", x, options.dropout);
  if (options.rotary_dims > 0) {
    add_rotary_table(graph, block, options.rotary_name, options.rotary_dims);
  }
  if (options.complex_rotary) {
    block.last().wide_tables = true;
    graph.shared.back().shape = {1};  // both are in the first
  }
  graph.segments.push_back({1, {block.finish(x)}});
}

void add_head(Graph& graph, const Sizes& sizes, const HeadOptions& options) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, graph.sequence, sizes.hidden});
  using Norm = HeadOptions::Norm;
  switch (options.norm) {
    case Norm::none: break;
    case Norm::rms: x = block.rms_norm(options.norm_name, x); break;
    case Norm::rms_unit_offset: x = block.rms_norm(options.norm_name, x, true); break;
    case Norm::rms_scaled_wide:
      x = block.rms_norm(options.norm_name, x);
      block.last().scales_wide = true;
      break;
    case Norm::layer_written_out: x = block.written_layer_norm(options.norm_name, x); break;
    case Norm::layer: x = block.layer_norm(options.norm_name, x); break;
    case Norm::layer_without_bias:
      x = block.layer_norm(options.norm_name, x, {.weight = true, .bias = false});
      break;
    case Norm::layer_plain_wide:
      x = block.widen(options.norm_name + ".widen", x);
      x = block.layer_norm(options.norm_name, x, {.weight = false, .bias = false});
      break;
    case Norm::layer_without_weights:
      x = block.layer_norm(options.norm_name, x, {.weight = false, .bias = false});
      break;
  }
  if (options.narrows) x = block.narrow(options.head_name + ".narrow", x);
  if (!options.project_name.empty()) {
    x = block.linear(options.project_name, x, options.project_width);
  }
  x = block.linear(
      options.head_name, x, sizes.vocabulary,
      {.bias = options.bias, .tied_to = sizes.tied ? options.embedding_name + ".weight" : ""});
  if (options.scale) x = block.scale(options.head_name + ".scale", x, *options.scale);
  x = block.softcap(options.head_name + ".softcap", x, options.softcap);
  graph.segments.push_back(
      {1, {block.finish(block.causal_lm_loss(x, kTokenIds, options.widens_logits))}});
}

void add_layers(Graph& graph, const std::vector<int>& kinds,
                const std::function<Block(int)>& block_of) {
  if (const std::size_t period = cycle_of(kinds); period > 0) {
    const std::size_t cycles = kinds.size() / period;
    graph.segments.push_back(
        segment_of(kinds, 0, period, static_cast<std::int64_t>(cycles), block_of));
    const std::size_t rest = kinds.size() - cycles * period;
    if (rest > 0) {
      graph.segments.push_back(segment_of(kinds, cycles * period, rest, 1, block_of));
    }
    return;
  }
  for (std::size_t first = 0; first < kinds.size();) {
    std::size_t end = first;
    while (end < kinds.size() && kinds[end] == kinds[first]) ++end;
    graph.segments.push_back(
        segment_of(kinds, first, 1, static_cast<std::int64_t>(end - first), block_of));
    first = end;
  }
}

std::vector<int> window_kinds(ConfigReader& config, std::int64_t layers,
                              const std::function<bool(std::int64_t)>& fallback) {
  std::vector<int> kinds(static_cast<std::size_t>(layers), 0);
  const std::vector<std::string> types = config.text_list({"layer_types"});
  if (!types.empty() && types.size() != kinds.size()) {
    config.reject("layer_types", fmt::format("{} entries", types.size()),
                  fmt::format("one for each of the {} layers (num_hidden_layers)", layers));
    return kinds;
  }
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (types.empty()) {
      kinds[i] = fallback(static_cast<std::int64_t>(i)) ? 1 : 0;
    } else if (types[i] == "sliding_attention") {
      kinds[i] = 1;
    } else if (types[i] != "full_attention") {
      config.reject("layer_types", "\"" + types[i] + "\"", "full_attention or sliding_attention");
    }
  }
  return kinds;
}

}  // namespace steelyard::model
