#include "model/operator_names.h"

namespace steelyard::model {

std::string_view name_of(OperatorKind kind) {
  switch (kind) {
    case OperatorKind::embedding: return "embedding";
    case OperatorKind::position_embedding: return "position_embedding";
    case OperatorKind::linear: return "linear";
    case OperatorKind::layer_norm: return "layer_norm";
    case OperatorKind::rms_norm: return "rms_norm";
    case OperatorKind::rotary_table: return "rotary_table";
    case OperatorKind::rotary: return "rotary";
    case OperatorKind::split: return "split";
    case OperatorKind::heads: return "heads";
    case OperatorKind::latent_heads: return "latent_heads";
    case OperatorKind::attention: return "attention";
    case OperatorKind::activation: return "activation";
    case OperatorKind::gated_activation: return "gated_activation";
    case OperatorKind::add: return "add";
    case OperatorKind::widen: return "widen";
    case OperatorKind::narrow: return "narrow";
    case OperatorKind::scale: return "scale";
    case OperatorKind::dropout: return "dropout";
    case OperatorKind::softcap: return "softcap";
    case OperatorKind::bias_activation: return "bias_activation";
    case OperatorKind::bias_dropout_add: return "bias_dropout_add";
    case OperatorKind::causal_lm_loss: return "causal_lm_loss";
    case OperatorKind::copy_to_ranks: return "copy_to_ranks";
    case OperatorKind::sum_over_ranks: return "sum_over_ranks";
    case OperatorKind::gather_sequence: return "gather_sequence";
    case OperatorKind::scatter_sequence: return "scatter_sequence";
    case OperatorKind::padding_mask: return "padding_mask";
    case OperatorKind::view: return "view";
    case OperatorKind::contiguous: return "contiguous";
    case OperatorKind::first_token: return "first_token";
    case OperatorKind::class_token: return "class_token";
    case OperatorKind::add_weight: return "add_weight";
    case OperatorKind::conv: return "conv";
    case OperatorKind::batch_norm: return "batch_norm";
    case OperatorKind::group_norm: return "group_norm";
    case OperatorKind::max_pool: return "max_pool";
    case OperatorKind::average_pool: return "average_pool";
    case OperatorKind::global_average_pool: return "global_average_pool";
    case OperatorKind::upsample: return "upsample";
    case OperatorKind::concatenate: return "concatenate";
    case OperatorKind::timestep_embedding: return "timestep_embedding";
    case OperatorKind::multiply: return "multiply";
    case OperatorKind::multiply_weight: return "multiply_weight";
    case OperatorKind::drop_path: return "drop_path";
    case OperatorKind::roll: return "roll";
    case OperatorKind::pad: return "pad";
    case OperatorKind::window_bias: return "window_bias";
    case OperatorKind::relative_bias: return "relative_bias";
    case OperatorKind::add_buffer: return "add_buffer";
    case OperatorKind::recurrent_attention: return "recurrent_attention";
    case OperatorKind::modulate: return "modulate";
    case OperatorKind::add_parts: return "add_parts";
    case OperatorKind::router: return "router";
    case OperatorKind::expert_assignment: return "expert_assignment";
    case OperatorKind::experts: return "experts";
    case OperatorKind::state_scan: return "state_scan";
    case OperatorKind::selective_scan: return "selective_scan";
    case OperatorKind::join: return "join";
    case OperatorKind::gather_features: return "gather_features";
    case OperatorKind::attach_loss: return "attach_loss";
    case OperatorKind::adapted_linears: return "adapted_linears";
    case OperatorKind::adapted_mlp: return "adapted_mlp";
    case OperatorKind::embedding_tables: return "embedding_tables";
    case OperatorKind::exchange_tables: return "exchange_tables";
    case OperatorKind::join_features: return "join_features";
    case OperatorKind::pairwise_products: return "pairwise_products";
    case OperatorKind::classification_loss: return "classification_loss";
    case OperatorKind::binary_loss: return "binary_loss";
    case OperatorKind::masked_lm_loss: return "masked_lm_loss";
    case OperatorKind::span_loss: return "span_loss";
    case OperatorKind::squared_loss: return "squared_loss";
    case OperatorKind::multibox_loss: return "multibox_loss";
  }
  return "";
}

}  // namespace steelyard::model
