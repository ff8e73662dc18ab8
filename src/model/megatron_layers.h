// The layers of Megatron-LM's own code, from what its arguments say: megatron_gpt.cpp reads them.
//
// Sources: megatron/core/transformer/{transformer_layer,attention,mlp,multi_latent_attention}.py,
// transformer/moe/moe_layer.py, models/hybrid/hybrid_layer_specs.py, ssm/mamba_mixer.py,
// transformer/multi_token_prediction.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

constexpr int kMixture = 1, kWindow = 2;  // bits of a layer's kind

struct Megatron {
  Sizes sizes;
  std::int64_t inner = 0;  // feed-forward width
  bool gated = false;
  bool rms = false;
  bool bias = true, qkv_bias = true;
  bool qk_norm = false;
  bool embedding_norm = false;  // of BLOOM
  ActivationKind activation = ActivationKind::gelu;
  std::int64_t rotary_dims = 0;
  bool learned_positions = false, alibi = false;
  bool causal = true;  // not in T5's encoder
  double hidden_dropout = 0.1, attention_dropout = 0.1;
  MixtureShape mixture;           // experts 0: none
  std::int64_t shared_inner = 0;  // feed-forward width of the experts that see every token
  std::vector<int> layer_kinds;   // by layer: kMixture, kWindow
  bool norms_in_linears = true;   // Transformer Engine's LayerNormLinear
  // Bias and activation as one kernel; bias, dropout and residual as one. Otherwise statement by
  // statement, with biases inside of the projections: what is kept is the same.
  bool fuses_activation = true, fuses_dropout = true, legacy = false;
  // Multi-latent attention: head_dim is c + r. query_rank 0: queries are not compressed.
  bool latent = false;
  std::int64_t query_rank = 0, key_rank = 0;
  std::int64_t turning = 0, value_dim = 0;  // r; of a value's head
  std::int64_t window = 0;                  // tokens; of the layers with kWindow
  bool sinks = false;                       // --softmax-type learnable: a weight per head
  std::int64_t latent_experts = 0;          // width that routed experts work in; 0: the model's
  // Hybrid models: a letter per layer in `layer_kinds` instead of those bits, and the mixer.
  bool hybrid = false;
  ScanShape scan;
  // Further tokens that are predicted, and the layers of each prediction (kinds as above);
  // `shares`: one set of weights serves all of them.
  std::int64_t predictions = 0;
  std::vector<int> prediction_kinds;
  bool shares_predictions = false;
};

// The arguments of a model of any of Megatron-LM's kinds (megatron_gpt.cpp).
[[nodiscard]] Megatron read_megatron(ConfigReader& config);

// A norm of the model's own sort.
[[nodiscard]] TensorRef megatron_norm(BlockBuilder& block, const Megatron& model,
                                      const std::string& name, TensorRef x);

// One layer of this kind, behind x.
[[nodiscard]] TensorRef megatron_layer(BlockBuilder& block, const Megatron& model, int kind,
                                       TensorRef x);

// One layer of a decoder that reads `states`, the encoder's [B,S,H], in a second attention.
[[nodiscard]] TensorRef megatron_decoder_layer(BlockBuilder& block, const Megatron& model,
                                               TensorRef x, TensorRef states);

// The norm behind the layers, and the layers that predict further tokens from what it gives: the
// states of all predictions, one behind the other along the tokens.
[[nodiscard]] Block megatron_predictions(const Graph& graph, const Megatron& model);
// The losses of the further tokens, then the one of the next.
[[nodiscard]] Block megatron_prediction_head(const Graph& graph, const Megatron& model);

}  // namespace steelyard::model
