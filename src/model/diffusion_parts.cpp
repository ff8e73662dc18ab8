#include "model/diffusion_parts.h"

namespace steelyard::model {

TensorRef add_diffusion_resnet(BlockBuilder& block, TensorRef x, TensorRef time,
                               const DiffusionResnetPart& part) {
  const auto of = [&](const char* module) { return part.name + "." + module; };
  const ConvOptions same{.kernel = 3, .padding = 1, .bias = true};
  const std::int64_t samples = block.shape(x).at(0);
  TensorRef h = block.group_norm(of("norm1"), x, part.groups);
  h = block.activation(of("nonlinearity1"), h, ActivationKind::silu);
  h = block.conv(of("conv1"), h, part.channels, same);
  TensorRef shift = block.activation(of("nonlinearity_time"), time, ActivationKind::silu);
  shift = block.linear(of("time_emb_proj"), shift, part.channels, {.bias = true});
  shift = block.view(of("time_emb"), shift, {samples, part.channels, 1, 1});
  h = block.add(of("add_time"), h, shift);
  h = block.group_norm(of("norm2"), h, part.groups);
  h = block.activation(of("nonlinearity2"), h, ActivationKind::silu);
  h = block.conv(of("conv2"), h, part.channels, same);
  TensorRef shortcut = x;
  if (block.shape(x).at(1) != part.channels) {
    shortcut = block.conv(of("conv_shortcut"), x, part.channels, {.kernel = 1, .bias = true});
  }
  h = block.add(of("residual"), shortcut, h);
  return block.scale(of("output_scale_factor"), h, 1.0);
}

namespace {

// attn1 reads x itself, attn2 the context.
TensorRef attention(BlockBuilder& block, TensorRef x, TensorRef context, const std::string& name,
                    std::int64_t heads) {
  const std::int64_t width = block.width(x);
  const auto projected = [&](const char* part, TensorRef from) {
    const TensorRef y = block.linear(name + "." + part, from, width);
    return block.heads(name + "." + part + "_heads", y, heads);
  };
  const TensorRef q = projected("to_q", x);
  const TensorRef k = projected("to_k", context);
  const TensorRef v = projected("to_v", context);
  const TensorRef y = block.attention(
      name, q, k, v,
      {.heads = heads, .kv_heads = heads, .head_dim = width / heads, .causal = false});
  return block.linear(name + ".to_out.0", y, width, {.bias = true});
}

// BasicTransformerBlock.
TensorRef transformer_block(BlockBuilder& block, TensorRef x, TensorRef context,
                            const std::string& name, std::int64_t heads) {
  const std::int64_t width = block.width(x);
  TensorRef h = block.layer_norm(name + ".norm1", x);
  h = attention(block, h, h, name + ".attn1", heads);
  TensorRef y = block.add(name + ".residual1", h, x);
  h = block.layer_norm(name + ".norm2", y);
  h = attention(block, h, context, name + ".attn2", heads);
  y = block.add(name + ".residual2", h, y);
  h = block.layer_norm(name + ".norm3", y);
  h = block.linear(name + ".ff.net.0.proj", h, 8 * width, {.bias = true});  // GEGLU: both halves
  h = block.fused_gated_activation(name + ".ff.net.0", h, ActivationKind::gelu);
  h = block.linear(name + ".ff.net.2", h, width, {.bias = true});
  return block.add(name + ".residual3", h, y);
}

}  // namespace

TensorRef add_diffusion_transformer(BlockBuilder& block, TensorRef x, TensorRef context,
                                    const DiffusionTransformerPart& part) {
  const auto of = [&](const std::string& module) { return part.name + "." + module; };
  const Shape picture = block.shape(x);
  const std::int64_t channels = picture.at(1);
  const Shape rows = {picture.at(0), picture.at(2) * picture.at(3), channels};
  const LinearOptions biased{.bias = true};
  TensorRef h = block.group_norm(of("norm"), x, part.groups);
  if (part.linear_projection) {
    h = block.view(of("to_rows"), h, rows, true);
    h = block.linear(of("proj_in"), h, channels, biased);
  } else {
    h = block.conv(of("proj_in"), h, channels, {.kernel = 1, .bias = true});
    h = block.view(of("to_rows"), h, rows, true);
  }
  for (std::int64_t i = 0; i < part.layers; ++i) {
    h = transformer_block(block, h, context, of("transformer_blocks." + std::to_string(i)),
                          part.heads);
  }
  if (part.linear_projection) h = block.linear(of("proj_out"), h, channels, biased);
  h = block.contiguous(of("to_picture"), block.view(of("to_channels"), h, picture, true));
  if (!part.linear_projection) {
    h = block.conv(of("proj_out"), h, channels, {.kernel = 1, .bias = true});
  }
  return block.add(of("residual"), h, x);
}

}  // namespace steelyard::model
