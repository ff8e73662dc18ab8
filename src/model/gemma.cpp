// Gemma to Gemma 3 (transformers: modeling_gemma.py, modeling_gemma2.py, modeling_gemma3.py):
// RMSNorm that multiplies by (1 + weight), embeddings scaled by sqrt(hidden), heads wider than
// hidden / heads. Gemma 2 adds a norm behind each half of a layer, caps scores and logits, and
// gives every other layer a window. Gemma 3 norms queries and keys instead of the caps, and layers
// with a window turn by a table of their own.
#include <cmath>

#include "model/decoder_parts.h"
#include "model/family.h"
#include "model/text_stack.h"

namespace steelyard::model {

namespace {

constexpr double kLargestCap = 1e6;

struct Gemma {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  std::int64_t window = 0;
  double final_softcap = 0.0;
  bool local_tables = false;
  TensorRef local_cos{true, 3}, local_sin{true, 4};
  std::string root = "model";  // of the names of all weights
};

Gemma read_gemma(ConfigReader& config, const SizeDefaults& defaults,
                 std::int64_t default_intermediate) {
  Gemma gemma;
  gemma.sizes = read_sizes(config, defaults);
  gemma.attention = attention_part(gemma.sizes);
  gemma.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  gemma.attention.qkv_bias = gemma.attention.out_bias = config.flag({"attention_bias"}, false);
  gemma.mlp.intermediate = config.whole({"intermediate_size"}, default_intermediate, kWideLimits);
  return gemma;
}

Block gemma_layer(const Graph& graph, const Gemma& gemma) {
  BlockBuilder block(graph, gemma.root + ".layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, gemma.sizes.hidden});
  TensorRef h = block.rms_norm("input_layernorm", x, true);
  h = add_attention(block, h, gemma.attention);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.rms_norm("post_attention_layernorm", middle, true);
  h = add_gated_mlp(block, h, gemma.mlp);
  return block.finish(block.add("residual_mlp", middle, h));
}

Block gemma2_layer(const Graph& graph, const Gemma& gemma, int kind) {
  AttentionPart attention = gemma.attention;
  attention.shape.window = kind == 1 ? gemma.window : 0;
  if (kind == 1 && gemma.local_tables) {
    attention.cos = gemma.local_cos;
    attention.sin = gemma.local_sin;
  }
  BlockBuilder block(graph, gemma.root + ".layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, gemma.sizes.hidden});
  TensorRef h = block.rms_norm("input_layernorm", x, true);
  h = add_attention(block, h, attention);
  h = block.rms_norm("post_attention_layernorm", h, true);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.rms_norm("pre_feedforward_layernorm", middle, true);
  h = add_gated_mlp(block, h, gemma.mlp);
  h = block.rms_norm("post_feedforward_layernorm", h, true);
  return block.finish(block.add("residual_mlp", middle, h));
}

Graph gemma_ends(ConfigReader& config, const SampleShape& sample, const Gemma& gemma,
                 const std::function<void(Graph&)>& add_middle) {
  Graph graph = start_graph(config, gemma.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .scale = std::sqrt(static_cast<double>(gemma.sizes.hidden)),
                    .rotary_dims = gemma.sizes.head_dim,
                    .rotary_name = "model.rotary_emb"});
  if (gemma.local_tables) {
    add_local_tables(graph, "model.rotary_emb_local", gemma.sizes.head_dim, gemma.local_cos,
                     gemma.local_sin);
  }
  add_middle(graph);
  add_head(graph, gemma.sizes,
           {.norm = HeadOptions::Norm::rms_unit_offset,
            .norm_name = "model.norm",
            .embedding_name = "model.embed_tokens",
            .softcap = gemma.final_softcap});
  return graph;
}

Gemma read_first(ConfigReader& config) {
  Gemma gemma = read_gemma(config,
                           {.vocabulary = 256000,
                            .hidden = 3072,
                            .layers = 28,
                            .heads = 16,
                            .kv_heads = 16,
                            .head_dim = 256,
                            .max_sequence = 8192,
                            .tied = true},
                           24576);
  // The published files say hidden_act = "gelu" and mean the tanh form; the class corrects it.
  gemma.mlp.activation =
      config.activation({"hidden_activation", "hidden_act"}, "gelu_pytorch_tanh");
  if (gemma.mlp.activation == ActivationKind::gelu) {
    gemma.mlp.activation = ActivationKind::gelu_tanh;
  }
  return gemma;
}

Gemma read_second(ConfigReader& config) {
  Gemma gemma = read_gemma(config,
                           {.vocabulary = 256000,
                            .hidden = 2304,
                            .layers = 26,
                            .heads = 8,
                            .kv_heads = 4,
                            .head_dim = 256,
                            .max_sequence = 8192,
                            .tied = true},
                           9216);
  gemma.mlp.activation =
      config.activation({"hidden_activation", "hidden_act"}, "gelu_pytorch_tanh");
  gemma.window = config.whole({"sliding_window"}, 4096, kWindowLimits);
  // null switches a cap off.
  const bool scores_capped = !config.is_null("attn_logit_softcapping");
  gemma.attention.shape.softcap =
      config.real({"attn_logit_softcapping"}, scores_capped ? 50.0 : 0.0, 0.0, kLargestCap);
  const bool logits_capped = !config.is_null("final_logit_softcapping");
  gemma.final_softcap =
      config.real({"final_logit_softcapping"}, logits_capped ? 30.0 : 0.0, 0.0, kLargestCap);
  return gemma;
}

Gemma read_third(ConfigReader& config) {
  Gemma gemma = read_gemma(config,
                           {.vocabulary = 262208,
                            .hidden = 2304,
                            .layers = 26,
                            .heads = 8,
                            .kv_heads = 4,
                            .head_dim = 256,
                            .max_sequence = 131072,
                            .tied = true},
                           9216);
  gemma.mlp.activation =
      config.activation({"hidden_activation", "hidden_act"}, "gelu_pytorch_tanh");
  gemma.window = config.whole({"sliding_window"}, 4096, kWindowLimits);
  gemma.attention.qk_norm = QkNorm::rms_per_head_offset;
  gemma.attention.shape.softcap = config.real({"attn_logit_softcapping"}, 0.0, 0.0, kLargestCap);
  gemma.final_softcap = config.real({"final_logit_softcapping"}, 0.0, 0.0, kLargestCap);
  gemma.local_tables = true;
  return gemma;
}

// Layers of kind 1 have a window.
std::vector<int> window_layers(ConfigReader& config, const Gemma& gemma) {
  if (!gemma.local_tables) {
    return window_kinds(config, gemma.sizes.layers,
                        [](std::int64_t layer) { return layer % 2 == 0; });
  }
  const std::int64_t pattern = config.whole({"sliding_window_pattern"}, 6, kLayerLimits);
  return window_kinds(config, gemma.sizes.layers,
                      [&](std::int64_t layer) { return (layer + 1) % pattern != 0; });
}

}  // namespace

Graph build_gemma(ConfigReader& config, const SampleShape& sample) {
  const Gemma gemma = read_first(config);
  return gemma_ends(config, sample, gemma, [&](Graph& graph) {
    graph.segments.push_back({gemma.sizes.layers, {gemma_layer(graph, gemma)}});
  });
}

namespace {

Graph build_windowed(ConfigReader& config, const SampleShape& sample, const Gemma& gemma) {
  const std::vector<int> kinds = window_layers(config, gemma);
  return gemma_ends(config, sample, gemma, [&](Graph& graph) {
    add_layers(graph, kinds, [&](int kind) { return gemma2_layer(graph, gemma, kind); });
  });
}

}  // namespace

Graph build_gemma2(ConfigReader& config, const SampleShape& sample) {
  return build_windowed(config, sample, read_second(config));
}

Graph build_gemma3_text(ConfigReader& config, const SampleShape& sample) {
  return build_windowed(config, sample, read_third(config));
}

TextStack read_gemma_stack(ConfigReader& text, const TextNames& names, int generation) {
  Gemma gemma = generation == 1   ? read_first(text)
                : generation == 2 ? read_second(text)
                                  : read_third(text);
  gemma.root = names.root;
  TextStack stack;
  stack.sizes = gemma.sizes;
  stack.names = names;
  stack.embedding_scale = std::sqrt(static_cast<double>(gemma.sizes.hidden));
  stack.rotary_dims = gemma.sizes.head_dim;
  stack.head = {.norm = HeadOptions::Norm::rms_unit_offset,
                .norm_name = names.root + ".norm",
                .embedding_name = names.root + ".embed_tokens",
                .head_name = names.head,
                .softcap = gemma.final_softcap};
  stack.kinds = generation == 1 ? std::vector<int>(static_cast<std::size_t>(gemma.sizes.layers), 0)
                                : window_layers(text, gemma);
  stack.local_tables = gemma.local_tables;
  gemma.local_cos = kPictureLocalCos;
  gemma.local_sin = kPictureLocalSin;
  stack.layer = [gemma, generation](const Graph& graph, int kind) {
    return generation == 1 ? gemma_layer(graph, gemma) : gemma2_layer(graph, gemma, kind);
  };
  return stack;
}

}  // namespace steelyard::model
