// The two halves of a decoder layer as most families write them: attention with separate
// projections, and the feed-forward network, gated or plain.
#pragma once

#include <cstdint>
#include <string>

#include "model/block_builder.h"
#include "model/family.h"

namespace steelyard::model {

// How queries and keys are normalised before they turn.
enum class QkNorm {
  none,
  rms_per_head,         // one weight [d] for all heads (Qwen3)
  rms_per_head_offset,  // the same, times (1 + weight) (Gemma 3)
  rms_whole,            // over all heads at once, before they are told apart (OLMo 2)
  layer_per_head,       // LayerNorm with weight and bias [d] for all heads (Phi)
  layer_each_head,      // LayerNorm without bias, a weight [d] for each head (StableLM 2)
  layer_written_out,    // LayerNorm in fp32 with one weight [n,d] (Cohere)
  rms_unit_turned,      // without weight, behind the turn (Llama 4)
  rms_per_head_turned,  // rms_per_head, behind the turn (HunYuan)
};

// Module names are relative to the block; the defaults are those of LLaMA.
struct AttentionPart {
  AttentionShape shape;
  std::int64_t hidden = 0;       // width of the output projection's result
  std::int64_t rotary_dims = 0;  // 0: not rotary
  bool rotary_joins_rest = false;
  bool turns_pairs = false, turns_complex = false, turns_halves = false;  // as in Operator
  bool qkv_bias = false;
  bool out_bias = false;
  QkNorm qk_norm = QkNorm::none;
  std::string module = "self_attn";
  std::string fused;  // one projection for queries, keys and values; empty: three
  std::string out = "o_proj";
  std::string q_norm = "q_norm";
  std::string k_norm = "k_norm";
  std::string sink;                  // full name of a weight in each row's sum; empty: none
  double key_scale = 0.0;            // of the keys (Falcon-H1); 0: none
  bool scales_queries = false;       // by their position, where nothing turns (Llama 4)
  TensorRef cos = kCos, sin = kSin;  // the rotary table
  bool sections = false;             // of three positions: each layer joins its own
  bool output_gate = false;          // a second half of the queries' projection (Qwen3-Next)
  bool spreads_tables = false;       // each layer repeats the tables' halves by neighbours (GLM)
};

// A second rotary table for layers with a window, by the block that made the first.
void add_local_tables(Graph& graph, const std::string& name, std::int64_t dims, TensorRef cos,
                      TensorRef sin);

// Causal attention of the sizes, all of each head turning.
[[nodiscard]] AttentionPart attention_part(const Sizes& sizes);

// [B,S,H] -> [B,S,H]: q, k, v, heads, norms, rotary, attention, output projection.
TensorRef add_attention(BlockBuilder& block, TensorRef x, const AttentionPart& part);

// The same from queries, keys and values [B,n,S,d] on, and perhaps a gate of the result.
TensorRef add_attention_core(BlockBuilder& block, TensorRef q, TensorRef k, TensorRef v,
                             const AttentionPart& part, TensorRef gate = {});

// A mixer of the gated delta rule with its projections (delta_net.cpp).
struct DeltaPart {
  ScanShape scan;  // of OperatorKind::delta_rule
  std::int64_t taps = 4;
  bool joined = true;  // two projections instead of four
  std::string module = "linear_attn";
};
TensorRef add_delta_net(BlockBuilder& block, TensorRef x, const DeltaPart& part);

// down(act(gate(x)) * up(x)); the same with gate and up in one matrix; down(act(up(x))).
enum class MlpForm { gated, fused, plain };

struct MlpPart {
  std::int64_t intermediate = 0;
  ActivationKind activation = ActivationKind::silu;
  bool bias = false;
  std::string module = "mlp";
  std::string gate = "gate_proj";
  std::string both = "gate_up_proj";  // fused
  std::string up = "up_proj";         // plain: the first of the two
  std::string down = "down_proj";     // the last
  std::string act = "act_fn";
  MlpForm form = MlpForm::gated;
};

TensorRef add_gated_mlp(BlockBuilder& block, TensorRef x, const MlpPart& part);
TensorRef add_fused_mlp(BlockBuilder& block, TensorRef x, const MlpPart& part);
TensorRef add_plain_mlp(BlockBuilder& block, TensorRef x, const MlpPart& part);
// As `part.form` says.
TensorRef add_mlp(BlockBuilder& block, TensorRef x, const MlpPart& part);

// Mamba-2 with its projections, as transformers' fast path runs it: one kernel from the convolution
// to the projection out.
struct MambaPart {
  ScanShape scan;
  std::int64_t taps = 4;
  bool conv_bias = true, bias = false;
  std::string module = "mamba";
};
TensorRef add_mamba2(BlockBuilder& block, TensorRef x, const MambaPart& part);

struct MixturePart {
  MixtureShape shape;
  ActivationKind activation = ActivationKind::silu;
  std::string module = "block_sparse_moe";
  std::string router = "gate";
  ExpertNames names = {};                // of experts that are modules of their own
  std::vector<StackedWeight> held = {};  // of the others
};

// Router, assignment of tokens to experts, experts (mixtral.cpp).
TensorRef add_mixture(BlockBuilder& block, TensorRef x, const MixturePart& part);

}  // namespace steelyard::model
