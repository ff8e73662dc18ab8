// A stack of layers that reads pictures in front of a larger model: CLIP's and SigLIP's vision
// transformers (transformers: modeling_clip.py, modeling_siglip.py), and the pre-norm layer that
// their text stacks share with them.
#pragma once

#include <cstdint>
#include <string>

#include "model/block_builder.h"
#include "model/image_parts.h"

namespace steelyard::model {

// LayerNorm, attention, LayerNorm, a plain feed-forward network: CLIPEncoderLayer and its kin.
struct PreNormLayer {
  std::int64_t hidden = 768, inner = 3072, heads = 12;
  ActivationKind activation = ActivationKind::gelu;
  double dropout = 0.0;  // of attention
  bool causal = false;
  bool wide_softmax = false;  // SigLIP: fp32, and the probabilities cast back before their dropout
};

// `at`: what the names begin with where the layer is no block of its own.
[[nodiscard]] TensorRef add_pre_norm_layer(BlockBuilder& block, TensorRef x,
                                           const PreNormLayer& layer, const std::string& at = {});

struct VisionTower {
  std::string root;  // "vision_tower.vision_model"
  PreNormLayer layer;
  std::int64_t layers = 12, patch = 16, side = 224, channels = 3;
  bool class_token = false;  // CLIP: a token before the patches, and a norm in front of the layers
  bool pools = false;        // SigLIP: a head of one query behind the layers
  // Of the sample.
  std::int64_t pictures = 1, height = 224, width = 224;

  [[nodiscard]] std::int64_t patches() const { return height / patch * (width / patch); }
  [[nodiscard]] std::int64_t tokens() const { return patches() + (class_token ? 1 : 0); }
  [[nodiscard]] Shape stream() const { return {pictures, tokens(), layer.hidden}; }
  [[nodiscard]] Shape pixels() const { return {pictures, channels, height, width}; }
};

// By the model_type that the configuration names, `fallback` where it names none.
[[nodiscard]] VisionTower read_vision_tower(ConfigReader& config, const std::string& root,
                                            const std::string& fallback);
// The size of the job's pictures, else the configuration's own; `pictures` of the micro-batch.
void set_pictures(ConfigReader& config, VisionTower& tower, const SampleShape& sample,
                  std::int64_t pictures);

// The first block and the layers of the stack; of these the first `count`.
void add_vision_layers(Graph& graph, const VisionTower& tower, TensorRef pixels,
                       std::int64_t count);
// In the block behind: the layers and the norm that run though nothing reads them.
void add_unread_layers(BlockBuilder& block, TensorRef x, const VisionTower& tower,
                       std::int64_t first);
[[nodiscard]] TensorRef add_post_norm(BlockBuilder& block, TensorRef x, const VisionTower& tower);
// What stands for a picture as a whole, [N,H]: CLIP's first token, SigLIP's pooling head.
[[nodiscard]] TensorRef add_pooling(BlockBuilder& block, TensorRef x, const VisionTower& tower);

}  // namespace steelyard::model
