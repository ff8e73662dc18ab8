"""Stands in on the CPU for the kernels of mamba_ssm and causal-conv1d: what their autograd functions
save, not what they compute. After causal_conv1d_interface.py (CausalConv1dFn),
selective_scan_interface.py (SelectiveScanFn), ssd_combined.py (MambaSplitConv1dScanCombinedFn) and
fla-core 0.6 (ChunkGatedDeltaRuleFunction, LayerNormGatedFunction).
"""
import importlib

import torch


def rows_first(tensor):
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


class CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        # Channels last are left as they lie.
        x = x if x.stride(2) == 1 or x.stride(1) == 1 else x.contiguous()
        ctx.save_for_backward(x, weight, bias)
        return torch.randn_like(x) / 8

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError


class SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, a, b, c, d, z, delta_bias):
        u, delta, b, c, z = (rows_first(tensor) for tensor in (u, delta, b, c, z))
        pieces = (u.shape[-1] + 2047) // 2048
        states = torch.zeros(*u.shape[:2], pieces, 2 * a.shape[1], dtype=torch.float32)
        out, gated = torch.zeros_like(u), torch.randn_like(u) / 8
        ctx.save_for_backward(u, delta, a, b, c, d, z, delta_bias, states, out)
        return gated, states[:, :, -1, 1::2]

    @staticmethod
    def backward(ctx, *gradients):
        raise NotImplementedError


class SplitScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, zxbcdt, conv_weight, conv_bias, dt_bias, a, d, norm, project, project_bias,
                headdim, groups):
        batch, tokens, _ = zxbcdt.shape
        width = d.shape[0] * headdim
        out_x = torch.randn(batch, tokens, width, dtype=zxbcdt.dtype) / 8
        # With a norm its roots; else the scan gates, and out_x is what it had before.
        rstd = torch.zeros(groups * batch * tokens) if norm is not None else None
        gated = torch.randn_like(out_x) / 8
        ctx.save_for_backward(zxbcdt, conv_weight, conv_bias, out_x, a, d, dt_bias, norm, rstd,
                              project, project_bias)
        return torch.nn.functional.linear(gated, project, project_bias)

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError


class DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, g, beta):
        # input_guard makes every tensor contiguous; queries and keys get unit length.
        q, k, v, g, beta = (tensor.contiguous() for tensor in (q, k, v, g, beta))
        q, k = torch.randn_like(q) / 8, torch.randn_like(k) / 8
        q_rstd, k_rstd = (torch.ones(tensor.shape[:-1]) for tensor in (q, k))
        sums = torch.zeros(g.shape)
        products = torch.zeros(*v.shape[:3], 64, dtype=k.dtype)
        ctx.save_for_backward(q, q_rstd, k, k_rstd, v, sums, beta, beta, products)
        return torch.randn_like(v) / 8

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError


class GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gate, weight):
        x, gate = x.contiguous(), gate.contiguous()
        ctx.save_for_backward(x, gate, weight, None, torch.ones(x.shape[0]))
        return torch.randn_like(x) / 8

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError


class FusedRMSNormGated(torch.nn.Module):
    def __init__(self, width, **_):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))

    def forward(self, x, gate):
        return GatedNorm.apply(x, gate, self.weight)


def chunk_gated_delta_rule(q, k, v, g, beta, **_):
    return DeltaRule.apply(q, k, v, g, beta), None


def causal_conv1d_fn(x, weight, bias=None, activation=None, **_):
    return CausalConv.apply(x, weight, bias)


def selective_scan_fn(u, delta, a, b, c, d, z, delta_bias, delta_softplus, return_last_state):
    return SelectiveScan.apply(u, delta, a, b, c, d, z, delta_bias)


def mamba_split_conv1d_scan_combined(zxbcdt, conv_weight, conv_bias, dt_bias, a, D, rmsnorm_weight,
                                     outproj_weight, outproj_bias, headdim, ngroups, **_):
    return SplitScan.apply(zxbcdt, conv_weight, conv_bias, dt_bias, a, D, rmsnorm_weight,
                           outproj_weight, outproj_bias, headdim, ngroups)


def install_delta(family):
    """The same of mixers of the delta rule."""
    if family == "qwen3_5_text":  # transformers 5, which names its kernels otherwise
        from transformers.models.qwen3_5 import modeling_qwen3_5
        modeling_qwen3_5.causal_conv1d_fn = causal_conv1d_fn
        modeling_qwen3_5.torch_chunk_gated_delta_rule = chunk_gated_delta_rule
        modeling_qwen3_5.Qwen3_5RMSNormGated = FusedRMSNormGated
        return
    from transformers.models.qwen3_next import modeling_qwen3_next
    modeling_qwen3_next.causal_conv1d_fn = causal_conv1d_fn
    modeling_qwen3_next.chunk_gated_delta_rule = chunk_gated_delta_rule
    modeling_qwen3_next.FusedRMSNormGated = FusedRMSNormGated
    torch.cuda.current_device = lambda: "cpu"  # where the mixer puts its norm
    torch.get_current_dtype = torch.get_default_dtype


def install():
    """The mixers of transformers then run their code for CUDA."""
    from transformers.models.falcon_h1 import modeling_falcon_h1
    from transformers.models.jamba import modeling_jamba
    modeling_jamba.causal_conv1d_fn = causal_conv1d_fn
    modeling_jamba.selective_scan_fn = selective_scan_fn
    modeling_jamba.is_fast_path_available = True
    modeling_falcon_h1.mamba_split_conv1d_scan_combined = mamba_split_conv1d_scan_combined

    for name, mixer in (("bamba", "BambaMixer"),
                        ("granitemoehybrid", "GraniteMoeHybridMambaLayer")):
        module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        module.mamba_split_conv1d_scan_combined = mamba_split_conv1d_scan_combined
        kind = getattr(module, mixer)
        kind.forward = kind.cuda_kernels_forward

    from transformers.models.lfm2 import modeling_lfm2
    modeling_lfm2.causal_conv1d_fn = causal_conv1d_fn

    def of_short_conv(self, hidden_states, past_key_values=None, cache_position=None,
                      attention_mask=None):
        return self.cuda_kernels_forward(hidden_states, past_key_values, cache_position,
                                         attention_mask)

    modeling_lfm2.Lfm2ShortConv.forward = of_short_conv

    def of_jamba(self, hidden_states, cache_params=None, attention_mask=None):
        return self.cuda_kernels_forward(hidden_states, cache_params, attention_mask)

    def of_falcon(self, hidden_states, cache_params=None, cache_position=None,
                  attention_mask=None):
        return self.cuda_kernels_forward(hidden_states, cache_params, cache_position,
                                         attention_mask)

    modeling_jamba.JambaMambaMixer.forward = of_jamba
    modeling_falcon_h1.FalconH1Mixer.forward = of_falcon
