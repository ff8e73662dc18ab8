// State-space mixers as the autograd functions of mamba_ssm: what they save, and what their
// derivatives make again.
//
// Sources (state-spaces/mamba e9594ce1): mamba_ssm/ops/triton/ssd_combined.py
// (MambaSplitConv1dScanCombinedFn), ssd_chunk_state.py, ssd_chunk_scan.py, ssd_state_passing.py,
// ssd_bmm.py, layernorm_gated.py; ops/selective_scan_interface.py (MambaInnerFn). Over a
// context-parallel group: Megatron-LM core/ssm/mamba_context_parallel.py.
#pragma once

#include "step/operators.h"

namespace steelyard::step {

// OperatorKind::state_scan. Saves what the projection gave and the scan's result before its gate;
// convolution, states and products of chunks are made again in backward.
[[nodiscard]] Tensor state_scan(Tape& tape, const OperatorCall& call);

// OperatorKind::selective_scan. Saves besides the small projections and the states between pieces
// of 2048 tokens.
[[nodiscard]] Tensor selective_scan(Tape& tape, const OperatorCall& call);

// The same kernel by kernel, with norms between them (ScanShape::apart; normed_scan.cpp).
[[nodiscard]] Tensor normed_selective_scan(Tape& tape, const OperatorCall& call);

// causal_conv1d_fn with its activation: keeps what it reads.
[[nodiscard]] Tensor causal_conv1d(Tape& tape, const Tensor& x, const Tensor& weight,
                                   const Tensor& bias);

// OperatorKind::delta_rule (delta_rule.cpp).
[[nodiscard]] Tensor delta_rule(Tape& tape, const OperatorCall& call);

// rms_norm in `groups` parts (RMSNorm of layernorm_gated.py): a statistic per row and part.
[[nodiscard]] Tensor grouped_rms_norm(Tape& tape, Tensor x, const Tensor& weight,
                                      std::int64_t groups);

}  // namespace steelyard::step
