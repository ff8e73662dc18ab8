// Blocks of diffusion networks as diffusers writes them: ResnetBlock2D and Transformer2DModel.
#pragma once

#include <cstdint>
#include <string>

#include "model/block_builder.h"

namespace steelyard::model {

struct DiffusionResnetPart {
  std::string name;  // "down_blocks.0.resnets.0"
  std::int64_t channels = 0;
  std::int64_t groups = 32;
};

// x [B,C,h,w], time [B,T] -> [B,channels,h,w].
TensorRef add_diffusion_resnet(BlockBuilder& block, TensorRef x, TensorRef time,
                               const DiffusionResnetPart& part);

struct DiffusionTransformerPart {
  std::string name;  // "down_blocks.0.attentions.0"
  std::int64_t heads = 8;
  std::int64_t layers = 1;  // transformer blocks
  std::int64_t groups = 32;
  bool linear_projection = false;  // proj_in and proj_out are linears instead of 1x1 convolutions
};

// x [B,C,h,w], context [B,L,D] -> [B,C,h,w].
TensorRef add_diffusion_transformer(BlockBuilder& block, TensorRef x, TensorRef context,
                                    const DiffusionTransformerPart& part);

}  // namespace steelyard::model
