// What the families of decoders share: sizes and their checks, and the ends of the graph. One file
// per family (llama.cpp, gpt2.cpp, ...) builds the layer between.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/block_builder.h"
#include "model/config_reader.h"
#include "model/graph.h"
#include "model/model.h"

namespace steelyard::model {

// The sizes that every decoder has.
struct Sizes {
  std::int64_t vocabulary = 0;
  std::int64_t hidden = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_sequence = 0;
  bool tied = false;  // lm_head shares the embedding's storage
};

// Defaults of a configuration class whose keys bear the usual names.
struct SizeDefaults {
  std::int64_t vocabulary, hidden, layers, heads;
  std::optional<std::int64_t> kv_heads;  // nothing: as many as heads
  std::optional<std::int64_t> head_dim;  // nothing: hidden / heads
  std::int64_t max_sequence;
  bool tied;
};

// Reads vocab_size, hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads,
// head_dim, max_position_embeddings, tie_word_embeddings, and checks that they agree.
[[nodiscard]] Sizes read_sizes(ConfigReader& config, const SizeDefaults& defaults);

// Checks for families that read their own keys; each names the keys it blames.
[[nodiscard]] std::int64_t divided_heads(ConfigReader& config, std::int64_t hidden,
                                         std::int64_t heads, std::string_view hidden_key,
                                         std::string_view heads_key);
void check_kv_heads(ConfigReader& config, const Sizes& sizes, std::string_view key);

// partial_rotary_factor (also inside rope_parameters or rope_scaling): the dimensions of a head
// that turn.
[[nodiscard]] std::int64_t rotary_dims_of(ConfigReader& config, std::int64_t head_dim,
                                          double default_factor);

// A graph with its sizes and the shared token ids (also the labels), still without blocks.
[[nodiscard]] Graph start_graph(const ConfigReader& config, const Sizes& sizes,
                                const SampleShape& sample);
// The shared token ids of a graph of start_graph.
constexpr TensorRef kTokenIds{true, 0};
constexpr TensorRef kCos{true, 1};
constexpr TensorRef kSin{true, 2};

// A table of learned positions has to be as long as the sample.
void check_positions(ConfigReader& config, const Graph& graph, std::int64_t positions,
                     std::string_view key);

// The first block: token embedding, and cos and sin [1,S,R] when R > 0.
struct EmbedOptions {
  std::string name;                  // full: "model.embed_tokens"
  std::optional<double> scale = {};  // multiplied in: Gemma, Granite
  std::string position_name = {};    // of a learned table, added to the tokens; empty: none
  std::int64_t positions = 0;        // rows of that table
  std::int64_t rotary_dims = 0;      // 0: not rotary
  std::string rotary_name = {};      // "model.rotary_emb"
  bool complex_rotary = false;       // one table of complex numbers (torch.polar), in fp32
  double dropout = 0.0;
};
void add_embed(Graph& graph, const EmbedOptions& options);
// cos, sin [1,S,dims] as shared tensors, made by the given block.
void add_rotary_table(Graph& graph, BlockBuilder& block, const std::string& name,
                      std::int64_t dims);

// The last block: final norm, lm_head, loss.
struct HeadOptions {
  enum class Norm {
    none,
    rms,
    rms_unit_offset,
    rms_scaled_wide,  // Operator::scales_wide
    layer,
    layer_without_bias,
    layer_without_weights,
    layer_plain_wide,   // the same of a copy in fp32
    layer_written_out,  // Operator::written_out
  };
  Norm norm = Norm::rms;
  std::string norm_name = {};       // full: "model.norm"
  std::string embedding_name = {};  // full, without ".weight": what a tied head shares
  std::string head_name = "lm_head";
  bool bias = false;
  std::string project_name = {};     // a linear between norm and head (OPT-350m); empty: none
  std::int64_t project_width = 0;    // its output
  std::optional<double> scale = {};  // of the logits: Granite
  double softcap = 0.0;              // of the logits
  bool widens_logits = true;         // Operator::widens_logits
  bool narrows = false;              // what the norm gives is cast to the weights' type
};
void add_head(Graph& graph, const Sizes& sizes, const HeadOptions& options);

// Layers whose blocks differ only by kind: `kinds[i]` is the kind of layer i, `block_of(kind)` its
// block. Equal runs and short cycles become repeated segments.
void add_layers(Graph& graph, const std::vector<int>& kinds,
                const std::function<Block(int kind)>& block_of);

// Full attention everywhere (kind 0) or a window (kind 1) by the keys of the newer classes:
// layer_types where present, else `fallback` (layer -> has a window).
[[nodiscard]] std::vector<int> window_kinds(ConfigReader& config, std::int64_t layers,
                                            const std::function<bool(std::int64_t)>& fallback);

// Builders of the families, one per model_type or related group.
Graph build_bart(ConfigReader& config, const SampleShape& sample);
Graph build_autoencoder_cogvideox(ConfigReader& config, const SampleShape& sample);
Graph build_autoencoder_kl(ConfigReader& config, const SampleShape& sample);
Graph build_autoencoder_ltx(ConfigReader& config, const SampleShape& sample);
Graph build_bert(ConfigReader& config, const SampleShape& sample);
Graph build_blenderbot(ConfigReader& config, const SampleShape& sample);
Graph build_bloom(ConfigReader& config, const SampleShape& sample);
Graph build_clip(ConfigReader& config, const SampleShape& sample);
Graph build_clip_text(ConfigReader& config, const SampleShape& sample);
Graph build_cogvideox(ConfigReader& config, const SampleShape& sample);
Graph build_cohere(ConfigReader& config, const SampleShape& sample);
Graph build_cohere2(ConfigReader& config, const SampleShape& sample);
Graph build_dbrx(ConfigReader& config, const SampleShape& sample);
Graph build_dcn(ConfigReader& config, const SampleShape& sample);
Graph build_deberta_v2(ConfigReader& config, const SampleShape& sample);
Graph build_deepseek_v2(ConfigReader& config, const SampleShape& sample);
Graph build_deepseek_v3(ConfigReader& config, const SampleShape& sample);
Graph build_deit(ConfigReader& config, const SampleShape& sample);
Graph build_distilbert(ConfigReader& config, const SampleShape& sample);
Graph build_dlrm(ConfigReader& config, const SampleShape& sample);
Graph build_electra(ConfigReader& config, const SampleShape& sample);
Graph build_falcon(ConfigReader& config, const SampleShape& sample);
Graph build_falcon_h1(ConfigReader& config, const SampleShape& sample);
Graph build_flux(ConfigReader& config, const SampleShape& sample);
Graph build_gemma(ConfigReader& config, const SampleShape& sample);
Graph build_gemma2(ConfigReader& config, const SampleShape& sample);
Graph build_gemma3_text(ConfigReader& config, const SampleShape& sample);
Graph build_glm4_moe(ConfigReader& config, const SampleShape& sample);
Graph build_gpt2(ConfigReader& config, const SampleShape& sample);
Graph build_gpt_bigcode(ConfigReader& config, const SampleShape& sample);
Graph build_gpt_neox(ConfigReader& config, const SampleShape& sample);
Graph build_gpt_oss(ConfigReader& config, const SampleShape& sample);
Graph build_gptj(ConfigReader& config, const SampleShape& sample);
Graph build_granite(ConfigReader& config, const SampleShape& sample);
Graph build_granitemoe(ConfigReader& config, const SampleShape& sample);
Graph build_hubert(ConfigReader& config, const SampleShape& sample);
Graph build_jamba(ConfigReader& config, const SampleShape& sample);
Graph build_layered(ConfigReader& config, const SampleShape& sample);
Graph build_llama(ConfigReader& config, const SampleShape& sample);
Graph build_llama4_text(ConfigReader& config, const SampleShape& sample);
Graph build_llava(ConfigReader& config, const SampleShape& sample);
Graph build_marian(ConfigReader& config, const SampleShape& sample);
Graph build_mbart(ConfigReader& config, const SampleShape& sample);
Graph build_ltx_video(ConfigReader& config, const SampleShape& sample);
Graph build_mamba(ConfigReader& config, const SampleShape& sample);
Graph build_mamba2(ConfigReader& config, const SampleShape& sample);
Graph build_megatron_gpt(ConfigReader& config, const SampleShape& sample);
Graph build_megatron_t5(ConfigReader& config, const SampleShape& sample);
Graph build_mistral(ConfigReader& config, const SampleShape& sample);
Graph build_mixtral(ConfigReader& config, const SampleShape& sample);
Graph build_modernbert(ConfigReader& config, const SampleShape& sample);
Graph build_mpt(ConfigReader& config, const SampleShape& sample);
Graph build_mt5(ConfigReader& config, const SampleShape& sample);
Graph build_nemotron_h(ConfigReader& config, const SampleShape& sample);
Graph build_olmo2(ConfigReader& config, const SampleShape& sample);
Graph build_olmoe(ConfigReader& config, const SampleShape& sample);
Graph build_opt(ConfigReader& config, const SampleShape& sample);
Graph build_paligemma(ConfigReader& config, const SampleShape& sample);
Graph build_pegasus(ConfigReader& config, const SampleShape& sample);
Graph build_phi(ConfigReader& config, const SampleShape& sample);
Graph build_phi3(ConfigReader& config, const SampleShape& sample);
Graph build_qwen2(ConfigReader& config, const SampleShape& sample);
Graph build_qwen2_5_vl(ConfigReader& config, const SampleShape& sample);
Graph build_qwen2_moe(ConfigReader& config, const SampleShape& sample);
Graph build_qwen2_vl(ConfigReader& config, const SampleShape& sample);
Graph build_qwen3(ConfigReader& config, const SampleShape& sample);
Graph build_qwen3_moe(ConfigReader& config, const SampleShape& sample);
Graph build_resnet(ConfigReader& config, const SampleShape& sample);
Graph build_roberta(ConfigReader& config, const SampleShape& sample);
Graph build_siglip(ConfigReader& config, const SampleShape& sample);
Graph build_stablelm(ConfigReader& config, const SampleShape& sample);
Graph build_starcoder2(ConfigReader& config, const SampleShape& sample);
Graph build_t5(ConfigReader& config, const SampleShape& sample);
Graph build_t5_encoder(ConfigReader& config, const SampleShape& sample);
Graph build_timm_vision_transformer(ConfigReader& config, const SampleShape& sample);
Graph build_torchvision_resnet(ConfigReader& config, const SampleShape& sample);
Graph build_transfo_xl(ConfigReader& config, const SampleShape& sample);
Graph build_unet(ConfigReader& config, const SampleShape& sample);
Graph build_vit(ConfigReader& config, const SampleShape& sample);
Graph build_wav2vec2(ConfigReader& config, const SampleShape& sample);
Graph build_whisper(ConfigReader& config, const SampleShape& sample);
Graph build_wide_deep(ConfigReader& config, const SampleShape& sample);
Graph build_xlm_roberta(ConfigReader& config, const SampleShape& sample);

}  // namespace steelyard::model
