#include "model/operator_names.h"

#include <iterator>
#include <utility>

namespace steelyard::model {

namespace {

// In the order of the enumeration.
constexpr std::pair<OperatorKind, std::string_view> kNames[] = {
    {OperatorKind::embedding, "embedding"},
    {OperatorKind::position_embedding, "position_embedding"},
    {OperatorKind::linear, "linear"},
    {OperatorKind::layer_norm, "layer_norm"},
    {OperatorKind::rms_norm, "rms_norm"},
    {OperatorKind::rotary_table, "rotary_table"},
    {OperatorKind::rotary, "rotary"},
    {OperatorKind::split, "split"},
    {OperatorKind::heads, "heads"},
    {OperatorKind::latent_heads, "latent_heads"},
    {OperatorKind::attention, "attention"},
    {OperatorKind::activation, "activation"},
    {OperatorKind::gated_activation, "gated_activation"},
    {OperatorKind::add, "add"},
    {OperatorKind::widen, "widen"},
    {OperatorKind::narrow, "narrow"},
    {OperatorKind::scale, "scale"},
    {OperatorKind::dropout, "dropout"},
    {OperatorKind::softcap, "softcap"},
    {OperatorKind::clamp, "clamp"},
    {OperatorKind::jitter, "jitter"},
    {OperatorKind::bias_activation, "bias_activation"},
    {OperatorKind::bias_dropout_add, "bias_dropout_add"},
    {OperatorKind::causal_lm_loss, "causal_lm_loss"},
    {OperatorKind::copy_to_ranks, "copy_to_ranks"},
    {OperatorKind::sum_over_ranks, "sum_over_ranks"},
    {OperatorKind::gather_sequence, "gather_sequence"},
    {OperatorKind::scatter_sequence, "scatter_sequence"},
    {OperatorKind::padding_mask, "padding_mask"},
    {OperatorKind::view, "view"},
    {OperatorKind::contiguous, "contiguous"},
    {OperatorKind::first_token, "first_token"},
    {OperatorKind::class_token, "class_token"},
    {OperatorKind::add_weight, "add_weight"},
    {OperatorKind::conv, "conv"},
    {OperatorKind::batch_norm, "batch_norm"},
    {OperatorKind::group_norm, "group_norm"},
    {OperatorKind::max_pool, "max_pool"},
    {OperatorKind::average_pool, "average_pool"},
    {OperatorKind::global_average_pool, "global_average_pool"},
    {OperatorKind::upsample, "upsample"},
    {OperatorKind::concatenate, "concatenate"},
    {OperatorKind::timestep_embedding, "timestep_embedding"},
    {OperatorKind::multiply, "multiply"},
    {OperatorKind::multiply_weight, "multiply_weight"},
    {OperatorKind::drop_path, "drop_path"},
    {OperatorKind::roll, "roll"},
    {OperatorKind::pad, "pad"},
    {OperatorKind::match_boxes, "match_boxes"},
    {OperatorKind::window_bias, "window_bias"},
    {OperatorKind::normed_conv, "normed_conv"},
    {OperatorKind::mask_tokens, "mask_tokens"},
    {OperatorKind::relative_bias, "relative_bias"},
    {OperatorKind::add_buffer, "add_buffer"},
    {OperatorKind::recurrent_attention, "recurrent_attention"},
    {OperatorKind::disentangled_attention, "disentangled_attention"},
    {OperatorKind::modulate, "modulate"},
    {OperatorKind::add_parts, "add_parts"},
    {OperatorKind::merge_pictures, "merge_pictures"},
    {OperatorKind::rotary_sections, "rotary_sections"},
    {OperatorKind::unit_length, "unit_length"},
    {OperatorKind::probe_attention, "probe_attention"},
    {OperatorKind::router, "router"},
    {OperatorKind::expert_assignment, "expert_assignment"},
    {OperatorKind::experts, "experts"},
    {OperatorKind::state_scan, "state_scan"},
    {OperatorKind::selective_scan, "selective_scan"},
    {OperatorKind::delta_rule, "delta_rule"},
    {OperatorKind::join, "join"},
    {OperatorKind::gather_features, "gather_features"},
    {OperatorKind::attach_loss, "attach_loss"},
    {OperatorKind::adapted_linears, "adapted_linears"},
    {OperatorKind::adapted_mlp, "adapted_mlp"},
    {OperatorKind::embedding_tables, "embedding_tables"},
    {OperatorKind::exchange_tables, "exchange_tables"},
    {OperatorKind::join_features, "join_features"},
    {OperatorKind::pairwise_products, "pairwise_products"},
    {OperatorKind::parameter, "parameter"},
    {OperatorKind::constant, "constant"},
    {OperatorKind::unary, "unary"},
    {OperatorKind::binary, "binary"},
    {OperatorKind::select, "select"},
    {OperatorKind::reduce, "reduce"},
    {OperatorKind::softmax, "softmax"},
    {OperatorKind::matmul, "matmul"},
    {OperatorKind::slice, "slice"},
    {OperatorKind::expand, "expand"},
    {OperatorKind::gather, "gather"},
    {OperatorKind::scatter, "scatter"},
    {OperatorKind::top, "top"},
    {OperatorKind::recurrent, "recurrent"},
    {OperatorKind::outputs_loss, "outputs_loss"},
    {OperatorKind::classification_loss, "classification_loss"},
    {OperatorKind::binary_loss, "binary_loss"},
    {OperatorKind::masked_lm_loss, "masked_lm_loss"},
    {OperatorKind::span_loss, "span_loss"},
    {OperatorKind::squared_loss, "squared_loss"},
    {OperatorKind::contrastive_loss, "contrastive_loss"},
    {OperatorKind::ctc_loss, "ctc_loss"},
    {OperatorKind::multibox_loss, "multibox_loss"},
    {OperatorKind::cached, "cached"},
    {OperatorKind::log_probabilities, "log_probabilities"},
    {OperatorKind::alignment_loss, "alignment_loss"},
};

constexpr bool in_order() {
  for (std::size_t i = 0; i < std::size(kNames); ++i) {
    if (static_cast<std::size_t>(kNames[i].first) != i) return false;
  }
  return true;
}
static_assert(in_order());

}  // namespace

std::string_view name_of(OperatorKind kind) {
  const auto index = static_cast<std::size_t>(kind);
  return index < std::size(kNames) ? kNames[index].second : std::string_view();
}

}  // namespace steelyard::model
