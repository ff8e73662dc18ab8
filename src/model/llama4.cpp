// Llama 4's text model (transformers 4.57: modeling_llama4.py): most layers turn queries and keys
// as complex numbers, norm them and see chunks of the past; the others see all of it without
// positions. All or every other layer is a mixture with an expert of all tokens.
#include <algorithm>
#include <string>
#include <vector>

#include "model/decoder_parts.h"
#include "model/family.h"
#include "model/llama4.h"

namespace steelyard::model {

namespace {

constexpr Limits kExpertLimits{1, 4096};
constexpr int kTurns = 1, kChunked = 2, kMixture = 4;

struct Llama4 {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;  // of layers without experts
  MixturePart mixture;
  std::int64_t chunk = 0;
  bool norms = true, scales = true;
};

TensorRef add_experts(BlockBuilder& block, TensorRef x, const Llama4& model) {
  const TensorRef routed = add_mixture(block, x, model.mixture);
  MlpPart shared = model.mlp;
  shared.module = model.mixture.module + ".shared_expert";
  shared.intermediate = model.mixture.shape.intermediate;
  // out = shared_expert(x); out.add_(routed)
  const TensorRef out = add_gated_mlp(block, x, shared);
  return block.add_in_place(model.mixture.module + ".add_routed", out, routed);
}

Block llama4_layer(const Graph& graph, const Llama4& model, const std::string& root, int kind) {
  AttentionPart attention = model.attention;
  const bool turns = (kind & kTurns) != 0;
  if (!turns) attention.rotary_dims = 0;
  if (turns && model.norms) attention.qk_norm = QkNorm::rms_unit_turned;
  attention.scales_queries = !turns && model.scales;
  attention.shape.chunk = (kind & kChunked) != 0 ? model.chunk : 0;
  BlockBuilder block(graph, root + ".layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  TensorRef h = block.rms_norm("input_layernorm", x);
  h = add_attention(block, h, attention);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.rms_norm("post_attention_layernorm", middle);
  h = (kind & kMixture) != 0 ? add_experts(block, h, model) : add_gated_mlp(block, h, model.mlp);
  return block.finish(block.add("residual_mlp", middle, h));
}

void read_mixture(ConfigReader& config, Llama4& model) {
  MixturePart& part = model.mixture;
  part.module = "feed_forward";
  part.router = "router";
  part.activation = model.mlp.activation;
  MixtureShape& shape = part.shape;
  shape.experts = config.whole({"num_local_experts"}, 16, kExpertLimits);
  shape.chosen = config.whole({"num_experts_per_tok"}, 1, kExpertLimits);
  shape.intermediate = config.whole({"intermediate_size"}, 8192, kWideLimits);
  shape.routing = Routing::sigmoid_of_chosen;
  shape.code = ExpertCode::dense;
  if (shape.chosen > shape.experts) {
    config.reject("num_experts_per_tok", std::to_string(shape.chosen),
                  "at most the " + std::to_string(shape.experts) + " of num_local_experts");
  }
  const std::int64_t hidden = model.sizes.hidden;
  part.held = {
      {"feed_forward.experts.gate_up_proj", {shape.experts, hidden, 2 * shape.intermediate}},
      {"feed_forward.experts.down_proj", {shape.experts, shape.intermediate, hidden}}};
}

// Of each layer whether it turns, sees chunks, has experts.
std::vector<int> kinds_of(ConfigReader& config, std::int64_t layers) {
  const auto count = static_cast<std::size_t>(layers);
  const std::int64_t interval = config.whole({"no_rope_layer_interval"}, 4, kLayerLimits);
  const std::int64_t step = config.whole({"interleave_moe_layer_step"}, 1, {0, kLayerLimits.most});
  // Empty in the published files: the interval counts.
  const std::vector<std::int64_t> turning = config.is_empty_list("no_rope_layers")
                                                ? std::vector<std::int64_t>()
                                                : config.whole_list({"no_rope_layers"}, {}, {0, 1});
  const std::vector<std::int64_t> sparse =
      config.whole_list({"moe_layers"}, {}, {0, std::max<std::int64_t>(0, layers - 1)});
  const std::vector<std::string> types = config.text_list({"layer_types"});
  if (!turning.empty() && turning.size() != count) {
    config.reject("no_rope_layers", std::to_string(turning.size()) + " entries",
                  "one for each of the " + std::to_string(layers) + " layers");
    return std::vector<int>(count, 0);
  }
  if (!types.empty() && types.size() != count) {
    config.reject("layer_types", std::to_string(types.size()) + " entries",
                  "one for each of the " + std::to_string(layers) + " layers");
    return std::vector<int>(count, 0);
  }
  std::vector<int> kinds;
  for (std::size_t i = 0; i < count; ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    const bool turns = turning.empty() ? (layer + 1) % interval != 0 : turning[i] != 0;
    const bool chunked = types.empty() ? turns : types[i] == "chunked_attention";
    const bool mixture = config.has("moe_layers")
                             ? std::find(sparse.begin(), sparse.end(), layer) != sparse.end()
                             : step > 0 && (layer + 1) % step == 0;
    kinds.push_back((turns ? kTurns : 0) | (chunked ? kChunked : 0) | (mixture ? kMixture : 0));
  }
  return kinds;
}

Llama4 read_llama4(ConfigReader& config) {
  Llama4 model;
  model.sizes = read_sizes(config, {.vocabulary = 202048,
                                    .hidden = 5120,
                                    .layers = 48,
                                    .heads = 40,
                                    .kv_heads = 8,
                                    .head_dim = 128,
                                    .max_sequence = 131072,
                                    .tied = false});
  model.attention = attention_part(model.sizes);
  model.attention.turns_complex = true;
  model.attention.qkv_bias = model.attention.out_bias = config.flag({"attention_bias"}, false);
  model.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  model.attention.shape.softmax_in_fp32 = false;
  model.mlp.module = "feed_forward";
  model.mlp.act = "activation_fn";
  model.mlp.intermediate = config.whole({"intermediate_size_mlp"}, 16384, kWideLimits);
  model.mlp.activation = config.activation({"hidden_act"}, "silu");
  model.chunk = config.whole({"attention_chunk_size"}, 8192, kWindowLimits);
  model.norms = config.flag({"use_qk_norm"}, true);
  // A flag, or a number that counts as one in some files.
  model.scales = !config.has("attn_temperature_tuning") ||
                 config.value("attn_temperature_tuning").as_bool() == nullptr ||
                 config.flag({"attn_temperature_tuning"}, true);
  read_mixture(config, model);
  return model;
}

Graph build_text(ConfigReader& config, const SampleShape& sample) {
  const TextStack text = read_llama4_stack(config, {});
  Graph graph = start_graph(config, text.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = text.rotary_dims,
                    .rotary_name = "model.rotary_emb",
                    .complex_rotary = true});
  add_layers(graph, text.kinds, [&](int kind) { return text.layer(graph, kind); });
  add_head(graph, text.sizes, text.head);
  return graph;
}

}  // namespace

TextStack read_llama4_stack(ConfigReader& config, const TextNames& names) {
  const Llama4 model = read_llama4(config);
  TextStack text;
  text.sizes = model.sizes;
  text.names = names;
  text.rotary_dims = model.sizes.head_dim;
  text.kinds = kinds_of(config, model.sizes.layers);
  text.head.norm = HeadOptions::Norm::rms;
  text.head.norm_name = names.root + ".norm";
  text.head.head_name = names.head;
  text.head.embedding_name = names.root + ".embed_tokens";
  text.layer = [model, root = names.root](const Graph& graph, int kind) {
    return llama4_layer(graph, model, root, kind);
  };
  return text;
}

Graph build_llama4_text(ConfigReader& config, const SampleShape& sample) {
  return build_text(config, sample);
}

// The file of the whole model: Llama4ForCausalLM trains its text_config alone
// (Llama4ForCausalLM.config_class is Llama4TextConfig), the other class reads pictures too.
Graph build_llama4(ConfigReader& config, const SampleShape& sample) {
  const std::vector<std::string> classes = config.text_list({"architectures"});
  if (!classes.empty() && classes.front() == "Llama4ForConditionalGeneration") {
    return build_llama4_pictures(config, sample);
  }
  ConfigReader text = config.table("text_config");
  Graph graph = build_text(text, sample);
  config.adopt(text);
  if (classes.empty() || !classes.front().ends_with("ForCausalLM")) {
    config.reject({.code = ErrorCode::not_supported,
                   .subject = config.subject_of("architectures"),
                   .found = classes.empty() ? "nothing" : "\"" + classes.front() + "\"",
                   .accepted = "\"Llama4ForCausalLM\", the text model of the same file, or "
                               "\"Llama4ForConditionalGeneration\"",
                   .hint = "say which of the two is trained"});
  }
  return graph;
}

}  // namespace steelyard::model
