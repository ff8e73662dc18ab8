// Writes one block of a graph down, operator by operator, in the order of the model's own code.
// Each method adds the operator, its weights and its output tensors, and returns the output.
//
// Shapes: B samples, S tokens, H hidden width, n heads of d dimensions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/graph.h"

namespace steelyard::model {

struct LinearOptions {
  bool bias = false;
  bool in_by_out = false;      // the weight is stored [K,N] (GPT-2's Conv1D) instead of [N,K]
  std::string tied_to = {};    // full name of the weight whose storage it shares
  bool replicated = false;     // whole on every tensor-parallel rank
  std::int64_t bias_size = 0;  // of a bias that covers a part of the results; 0: all of them
  bool gathers_output = false;
};

// Weights of a scan beside the mixer's own. Empty names: not there.
struct ScanOptions {
  std::string norm = {};     // of the kernel that also norms and projects: "mixer.norm"
  std::string project = {};  // "mixer.out_proj"
  std::int64_t width = 0;    // its output
  std::int64_t taps = 4;     // of the convolution
  bool conv_bias = true;
  bool project_bias = false;
};

struct ConvOptions {
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t groups = 1;
  bool bias = false;
  std::int64_t dilation = 1;
  bool transposed = false;  // h' = (h - 1) * stride - 2 padding + kernel
  bool rounds_up = false;   // pools: a window that is cut off counts (ceil_mode)
};

// What is left of a side under a window: torch.nn.Conv2d and MaxPool2d; may be 0 or less.
[[nodiscard]] std::int64_t windows_of(std::int64_t side, const ConvOptions& options);

struct LayerNormOptions {
  bool weight = true;
  bool bias = true;
};

// Matrices of one expert; the defaults are Mixtral's.
struct ExpertNames {
  std::string gate = "w1", down = "w2", up = "w3";
};

// A weight that holds a matrix, or a bias, of all experts.
struct StackedWeight {
  std::string name;  // full
  Shape shape;
  WeightRole role = WeightRole::matrix;
};

class BlockBuilder {
 public:
  // `graph` holds the shared tensors and outlives the builder.
  BlockBuilder(const Graph& graph, std::string name);

  // The residual stream from the block before.
  TensorRef input(Shape shape);

  // ids [B,S] -> [B,S,width]; weight NAME.weight [rows,width].
  TensorRef embedding(const std::string& name, TensorRef ids, std::int64_t rows, std::int64_t width,
                      const std::string& tied_to = "");
  // -> [samples,tokens,width], samples 1 or B, tokens 0: S; weight NAME.weight [rows,width].
  TensorRef position_embedding(const std::string& name, std::int64_t rows, std::int64_t width,
                               std::int64_t samples = 1, std::int64_t tokens = 0);
  // The weight of the operator just written never trains: fixed sines.
  void freeze_weight() { block_.weights.back().trains = false; }
  // The weight of the operator just written is that one of another block.
  void tie_weight(const std::string& to) { block_.weights.back().tied_to = to; }
  // What the operator just written puts out is that shared tensor.
  TensorRef publish(TensorRef shared);
  // [..., K] -> [..., out_features].
  TensorRef linear(const std::string& name, TensorRef in, std::int64_t out_features,
                   const LinearOptions& options = {});
  TensorRef rms_norm(const std::string& name, TensorRef in, bool unit_offset = false);
  // T5LayerNorm (Operator::keeps_narrow).
  TensorRef narrow_rms_norm(const std::string& name, TensorRef in);
  // Without a weight.
  TensorRef unit_rms_norm(const std::string& name, TensorRef in);
  TensorRef layer_norm(const std::string& name, TensorRef in, LayerNormOptions options = {});
  // CohereLayerNorm (Operator::written_out): a weight, [heads,d] over heads [B,n,S,d].
  TensorRef written_layer_norm(const std::string& name, TensorRef in, std::int64_t heads = 0);
  // As layer_norm over the last dimension, with weights of their own for each of the heads:
  // NAME.norms.I.weight [d].
  TensorRef layer_norm_per_head(const std::string& name, TensorRef in);
  // Fills the shared tensors `cos` and `sin`.
  void rotary_table(const std::string& name, TensorRef cos, TensorRef sin);
  // Tables of this block alone, of the shape given and the type of `like`.
  std::pair<TensorRef, TensorRef> own_rotary_table(const std::string& name, TensorRef like,
                                                   Shape of_table);
  // What the model computes anew in every forward pass and never trains: a mask, a position's
  // scale.
  TensorRef values(const std::string& name, Shape shape, ElementKind kind = ElementKind::real);
  // q, k -> q, k with the first `dims` dimensions of each head turned.
  std::pair<TensorRef, TensorRef> rotary(const std::string& name, TensorRef q, TensorRef k,
                                         TensorRef cos, TensorRef sin, std::int64_t dims,
                                         bool joins_rest = false);
  // Views of the last dimension, of the given sizes; with `gathers_parts` only the first is one.
  std::vector<TensorRef> split(const std::string& name, TensorRef in,
                               const std::vector<std::pair<std::string, std::int64_t>>& parts,
                               bool gathers_parts = false);
  // OperatorKind::clamp, jitter.
  TensorRef clamp(const std::string& name, TensorRef in);
  TensorRef jitter(const std::string& name, TensorRef in);
  // The weight itself, whose name is full.
  TensorRef parameter(const std::string& name, Shape shape, WeightRole role);
  // The operator just written.
  [[nodiscard]] Operator& last() { return block_.operators.back(); }
  // [B,S,n*d] -> [B,n,S,d], a view.
  TensorRef heads(const std::string& name, TensorRef in, std::int64_t count);
  // Queries, keys and values of multi-latent attention (OperatorKind::latent_heads).
  std::vector<TensorRef> latent_heads(const std::string& name, TensorRef q, TensorRef key_value,
                                      TensorRef positions, TensorRef table,
                                      const AttentionShape& shape);
  // The same with the model's own tables; `complex` as Operator::turns_complex.
  std::vector<TensorRef> latent_heads(const std::string& name, TensorRef q, TensorRef key_value,
                                      TensorRef positions, TensorRef cos, TensorRef sin,
                                      const AttentionShape& shape, bool complex);
  // The norm just written is a part of the linear behind it.
  void inside_next() { block_.operators.back().inside_next = true; }
  // q [B,n,S,d], k, v [B,kv,S,d] -> [B,S,n*d]. `sink`: full name of a weight [n] in each row's sum.
  TensorRef attention(const std::string& name, TensorRef q, TensorRef k, TensorRef v,
                      const AttentionShape& shape, const std::string& sink = "");
  TensorRef activation(const std::string& name, TensorRef in, ActivationKind kind);
  // act(gate) * up.
  TensorRef gated_activation(const std::string& name, TensorRef gate, TensorRef up,
                             ActivationKind kind);
  // act(gate) * x, one gate [..., 1] of each token.
  TensorRef token_gate(const std::string& name, TensorRef gate, TensorRef x, ActivationKind kind);
  // The same from one tensor [..., 2F] that holds gate, then up.
  TensorRef fused_gated_activation(const std::string& name, TensorRef gate_up, ActivationKind kind);
  TensorRef add(const std::string& name, TensorRef a, TensorRef b);
  // In fp32, or in the type of the weights.
  TensorRef widen(const std::string& name, TensorRef in);
  TensorRef narrow(const std::string& name, TensorRef in);
  TensorRef scale(const std::string& name, TensorRef in, double constant);
  // Nothing is added for a probability or a cap of 0: PyTorch's dropout and the model's code skip
  // it.
  TensorRef dropout(const std::string& name, TensorRef in, double probability);
  TensorRef softcap(const std::string& name, TensorRef in, double cap);
  // act(in + bias); with `gated` act(first half) * second half. `bias`: full name of the weight,
  // empty when there is none.
  TensorRef bias_activation(const std::string& name, TensorRef in, ActivationKind kind, bool gated,
                            const std::string& bias);
  // residual + dropout(in + bias).
  TensorRef bias_dropout_add(const std::string& name, TensorRef in, TensorRef residual,
                             double probability, const std::string& bias);
  // logits [B,S,V], labels [B,S] -> scalar.
  TensorRef causal_lm_loss(TensorRef logits, TensorRef labels, bool widens_logits = true);
  // The other losses of OperatorKind; `inputs` in its order.
  TensorRef loss(OperatorKind kind, std::vector<TensorRef> inputs, const std::string& name);

  // --- block_builder_image.cpp: encoders, pictures, experts ---

  // ids [B,S] of the batch -> the shared tensor [B,1,1,S].
  void padding_mask(const std::string& name, TensorRef ids, TensorRef mask);
  // The same as a tensor of the block, [B,1,queries,K].
  TensorRef row_mask(const std::string& name, TensorRef ids, std::int64_t queries);
  // As attention; `mask` is added to the scores where the model's own code runs.
  TensorRef masked_attention(const std::string& name, TensorRef q, TensorRef k, TensorRef v,
                             TensorRef mask, const AttentionShape& shape);
  // The same elements under another shape.
  TensorRef view(const std::string& name, TensorRef in, Shape shape, bool transposed = false);
  TensorRef contiguous(const std::string& name, TensorRef in);
  // [B,S,H] -> [B,H].
  TensorRef first_token(const std::string& name, TensorRef in);
  // [B,P,H] -> [B,P+n,H]; weights [1,1,H] of the given full names, one token each; `flat`: [H].
  TensorRef class_tokens(const std::string& name, TensorRef in,
                         const std::vector<std::string>& tokens, bool flat = false);
  // in + weight; the weight has the name as it stands.
  TensorRef add_weight(const std::string& name, TensorRef in, Shape shape);
  // [B,C,h,w] -> [B,channels,h',w'], h' = (h + 2 padding - kernel) / stride + 1.
  TensorRef conv(const std::string& name, TensorRef in, std::int64_t channels,
                 const ConvOptions& options);
  // [B,C,h,w]; buffers NAME.running_mean, .running_var [C], .num_batches_tracked.
  TensorRef batch_norm(const std::string& name, TensorRef in);
  TensorRef group_norm(const std::string& name, TensorRef in, std::int64_t groups);
  TensorRef max_pool(const std::string& name, TensorRef in, const ConvOptions& window);
  TensorRef average_pool(const std::string& name, TensorRef in, std::int64_t height,
                         std::int64_t width);
  // [B,C,h,w] -> [B,C], or [B,C,1,1]; [B,S,H] -> [B,H].
  TensorRef global_average_pool(const std::string& name, TensorRef in, bool keeps_rank = false);
  TensorRef upsample(const std::string& name, TensorRef in, std::int64_t height,
                     std::int64_t width);
  // Along the channels, or along the given dimension.
  TensorRef concatenate(const std::string& name, TensorRef a, TensorRef b);
  TensorRef concatenate(const std::string& name, const std::vector<TensorRef>& parts,
                        std::size_t dimension);
  TensorRef multiply(const std::string& name, TensorRef a, TensorRef b);
  // in * weight; the weight has the name as it stands.
  TensorRef multiply_weight(const std::string& name, TensorRef in, std::int64_t elements);
  TensorRef drop_path(const std::string& name, TensorRef in, double probability);
  TensorRef roll(const std::string& name, TensorRef in);
  TensorRef pad(const std::string& name, TensorRef in, Shape shape);
  // in, as it is; meanwhile tensors of so many pairs of boxes exist.
  TensorRef match_boxes(const std::string& name, TensorRef in, std::int64_t pairs, double bytes);
  // -> [1,heads,length,length]; weight NAME_table [rows,heads].
  TensorRef window_bias(const std::string& name, std::int64_t rows, std::int64_t length,
                        std::int64_t heads);
  TensorRef timestep_embedding(const std::string& name, TensorRef steps, std::int64_t channels);
  // Convolution with a window of any shape: the weight's, bias included, and the result's.
  TensorRef conv_as(const std::string& name, TensorRef in, Shape of_weight, Shape out);
  // A weight alone, of a module whose code is not written down (frozen companions).
  void plain_weight(const std::string& name, Shape of_weight, WeightRole role = WeightRole::matrix);
  // in + a tensor that lives beside the weights.
  TensorRef add_buffer(const std::string& name, TensorRef in, Shape of_buffer);

  // --- block_builder_diffusion.cpp: diffusion transformers ---

  // [B,S,H] into parts of so many tokens.
  std::vector<TensorRef> split_tokens(
      const std::string& name, TensorRef in,
      const std::vector<std::pair<std::string, std::int64_t>>& parts, bool own_parts);
  // [B,n*H] into n parts [B,H].
  std::vector<TensorRef> chunk(const std::string& name, TensorRef in, std::int64_t count);
  TensorRef modulate(const std::string& name, TensorRef in, TensorRef scale, TensorRef shift);
  TensorRef add_parts(const std::string& name, TensorRef in, const std::vector<TensorRef>& parts);
  // q, k [..., d] with neighbouring dimensions turned.
  std::pair<TensorRef, TensorRef> rotary_pairs(const std::string& name, TensorRef q, TensorRef k,
                                               TensorRef cos, TensorRef sin);
  // diffusers' RMSNorm; without a weight where `affine` is false.
  TensorRef rms_norm_of_input(const std::string& name, TensorRef in, bool affine = true);
  // cos and sin as fp32 tables.
  void wide_rotary_table(const std::string& name, TensorRef cos, TensorRef sin);
  // Into a tensor that all blocks share: the last operator's result is it.
  void share(TensorRef made, TensorRef shared);
  // [..., a] beside [..., b].
  TensorRef concatenate_last(const std::string& name, TensorRef a, TensorRef b);
  // [B,n,S,d] beside [B,n,T,d].
  TensorRef concatenate_rows(const std::string& name, TensorRef a, TensorRef b);

  // Into the storage of the first input.
  TensorRef activation_in_place(const std::string& name, TensorRef in, ActivationKind kind);
  TensorRef add_in_place(const std::string& name, TensorRef into, TensorRef other);

  // -> [1,n,queries,keys]; weight NAME.weight [buckets,n], with 0 buckets none.
  TensorRef relative_bias(const std::string& name, std::int64_t buckets, std::int64_t heads,
                          std::int64_t queries, std::int64_t keys);
  // OperatorKind::disentangled_attention; of the distances' keys and queries one may lack.
  TensorRef disentangled_attention(const std::string& name, TensorRef q, TensorRef k, TensorRef v,
                                   TensorRef key_distances, TensorRef query_distances,
                                   const AttentionShape& shape);
  // OperatorKind::recurrent_attention; weights MODULE.qkv_net.weight, MODULE.r_net.weight and the
  // given ones [n,d], of full names, that all layers share.
  TensorRef recurrent_attention(const std::string& name, TensorRef in, TensorRef memory,
                                TensorRef distances, const AttentionShape& shape,
                                const std::string& content_bias, const std::string& distance_bias);
  // A weight that layers share and no operator of the block reads.
  void own_weight(const std::string& name, Shape shape);
  TensorRef add_buffer(const std::string& name, TensorRef in);  // buffer NAME [1,width]

  // Weights NAME.weight [E,H], perhaps NAME.bias; -> weights [T,k], experts [T,k].
  std::pair<TensorRef, TensorRef> router(const std::string& name, TensorRef in,
                                         const MixtureShape& mixture);
  // -> for each expert the slots, then the tokens that chose it.
  std::vector<TensorRef> expert_assignment(const std::string& name, TensorRef chosen,
                                           const MixtureShape& mixture);
  // Weights NAME.I.w1, w3 [intermediate,H], w2 [H,intermediate] of expert I.
  // Experts of two matrices, NAME.I.linear_fc1.weight [intermediate (twice when gated),H] and
  // NAME.I.linear_fc2.weight [H,intermediate].
  TensorRef two_matrix_experts(const std::string& name, TensorRef in, TensorRef weights,
                               const std::vector<TensorRef>& assigned, const MixtureShape& mixture,
                               ActivationKind kind, bool gated);
  TensorRef experts(const std::string& name, TensorRef in, TensorRef weights,
                    const std::vector<TensorRef>& assignment, const MixtureShape& mixture,
                    ActivationKind kind, const ExpertNames& names = {});
  // All experts in two weights, NAME.input_linear.weight [E,2*intermediate,H] and
  // NAME.output_linear.weight [E,H,intermediate]; `chosen` as the router gives it.
  TensorRef parallel_experts(const std::string& name, TensorRef in, TensorRef weights,
                             TensorRef chosen, const MixtureShape& mixture, ActivationKind kind);

  // Experts whose weights MixtureShape::stacked() says lie together; `read` is what their code
  // reads beside the tokens and weights: the choice, or what expert_assignment gave.
  TensorRef stacked_experts(const std::string& name, TensorRef in, TensorRef weights,
                            const std::vector<TensorRef>& read, const MixtureShape& mixture,
                            ActivationKind kind, const std::vector<StackedWeight>& held);

  // --- block_builder_pictures.cpp: pictures beside text ---

  // text [B,S,H] with the features, of as many elements, where ids say so.
  TensorRef merge_pictures(const std::string& name, TensorRef text, TensorRef features,
                           TensorRef ids);
  // The tables of one layer, [B,S,R], of pieces of [3,B,S,R].
  std::pair<TensorRef, TensorRef> rotary_sections(const std::string& name, TensorRef cos,
                                                  TensorRef sin);
  // q, k -> q, k by fp32 tables (Operator::wide_tables).
  std::pair<TensorRef, TensorRef> wide_rotary(const std::string& name, TensorRef q, TensorRef k,
                                              TensorRef cos, TensorRef sin);
  TensorRef unit_length(const std::string& name, TensorRef in);
  // [B,P,H] -> [B,1,H]; weights NAME.in_proj_weight, .in_proj_bias, .out_proj.weight, .bias and
  // `probe`, of a full name.
  TensorRef probe_attention(const std::string& name, TensorRef in, std::int64_t heads,
                            const std::string& probe);
  // Weights `scale` [] and, unless empty, `bias` [].
  TensorRef contrastive_loss(TensorRef text, TensorRef pictures, const std::string& scale,
                             Shape of_weights, const std::string& bias = {});
  // Tokens of [B,S,H] by an index that the model computes: [B,H], or of the shape given.
  TensorRef gather_tokens(const std::string& name, TensorRef in, Shape out);
  // Tokens from `first` on, a view.
  TensorRef tokens_from(const std::string& name, TensorRef in, std::int64_t first);
  // Convolution whose window is its step, without a bias unless asked for, of any rank.
  TensorRef patches_of(const std::string& name, TensorRef in, Shape of_weight, Shape out,
                       bool bias);
  // Nothing reads what the weights written since `from` give: they never get a gradient.
  void leave_unread(std::size_t from);
  [[nodiscard]] std::size_t weight_count() const { return block_.weights.size(); }

  // --- block_builder_speech.cpp: sound ---

  // [B,C,T] -> [B,channels,T'].
  TensorRef conv_over_time(const std::string& name, TensorRef in, std::int64_t channels,
                           const ConvOptions& options);
  // The same under torch.nn.utils.parametrizations.weight_norm with dim=2; weights
  // NAME.parametrizations.weight.original0, original1, NAME.bias.
  TensorRef normed_conv(const std::string& name, TensorRef in, std::int64_t channels,
                        const ConvOptions& options);
  // OperatorKind::mask_tokens, a `share` of them. `replacement`: full name of a weight [H], or
  // empty: zeros.
  TensorRef masked_tokens(const std::string& name, TensorRef in, TensorRef mask, double share,
                          const std::string& replacement);
  TensorRef tokens_times_mask(const std::string& name, TensorRef in, TensorRef mask);
  // The same without what lies behind: a view.
  TensorRef cut(const std::string& name, TensorRef in, Shape out);

  // --- block_builder_tables.cpp: recommendation ---

  // ids [B,sum of pooling] -> of each table the sum over its ids [B,width]; weights NAME.I.weight
  // [rows,width].
  std::vector<TensorRef> embedding_tables(const std::string& name, TensorRef ids,
                                          const std::vector<std::int64_t>& rows, std::int64_t width,
                                          const std::vector<std::int64_t>& pooling, bool sparse);
  // Side by side.
  TensorRef join_features(const std::string& name, std::vector<TensorRef> parts);
  // [B,n*D] -> [B,n(n-1)/2].
  TensorRef pairwise_products(const std::string& name, TensorRef in, std::int64_t vectors);

  // --- block_builder_scan.cpp: state-space mixers, further predictions ---

  // gate, x, B, C, dt [B,S,2D+2GN+heads] -> [B,S,D], or [B,S,width] with options.project. Weights
  // MODULE.conv1d.weight, .bias, MODULE.dt_bias, .A_log, .D.
  TensorRef state_scan(const std::string& module, TensorRef in, const ScanShape& scan,
                       const ScanOptions& options = {});
  // x, gate [B,S,2D] -> [B,S,width]. Weights besides: MODULE.x_proj, MODULE.dt_proj.
  TensorRef selective_scan(const std::string& module, TensorRef in, const ScanShape& scan,
                           const ScanOptions& options);
  // OperatorKind::delta_rule. Weights MODULE.conv1d.weight, .dt_bias, .A_log, .norm.weight.
  TensorRef delta_rule(const std::string& module, const std::vector<TensorRef>& in,
                       const ScanShape& scan, std::int64_t taps);
  // rms_norm of `groups` parts of the last dimension, each by itself.
  TensorRef grouped_rms_norm(const std::string& name, TensorRef in, std::int64_t groups);
  // Along dimension `along`.
  TensorRef join(const std::string& name, const std::vector<TensorRef>& parts, std::size_t along);
  // As many views along the dimension of the tokens.
  std::vector<TensorRef> token_chunks(const std::string& name, TensorRef in, std::int64_t count);
  TensorRef attach_loss(const std::string& name, TensorRef in, TensorRef loss);
  // Weights written from now on have names that begin so; with `shared`, each has the storage of
  // the one whose name begins with that instead.
  void prefix_weights(std::string prefix, std::string shared = {}) {
    prefix_ = std::move(prefix);
    shared_prefix_ = std::move(shared);
  }
  // The weight of the operator just written is that of the operator NAME of the same block.
  void share_weight(const std::string& name);

  [[nodiscard]] const Shape& shape(TensorRef ref) const;
  [[nodiscard]] std::int64_t width(TensorRef ref) const { return shape(ref).back(); }

  // The block; the builder is empty afterwards.
  [[nodiscard]] Block finish(TensorRef output);

 private:
  TensorRef tensor(std::string name, Shape shape, ElementKind kind = ElementKind::real);
  std::int32_t weight(std::string name, Shape shape, WeightRole role, std::string tied_to = {});
  Operator& append(OperatorKind kind, const std::string& name, std::vector<TensorRef> inputs);
  // An operator whose only output has the shape of its first input.
  Operator& append_alike(OperatorKind kind, const std::string& name, std::vector<TensorRef> inputs);

  const Graph& graph_;
  Block block_;
  std::string prefix_, shared_prefix_;
};

}  // namespace steelyard::model
