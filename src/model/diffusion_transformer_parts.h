// What the diffusion transformers of diffusers share: the start of their graph, embeddings of time
// and text, modulated norms, feed-forward. Sources: diffusers 0.32, models/embeddings.py,
// models/normalization.py, models/attention.py.
//
// Streams that the code holds as two tensors (text and picture) and hands from block to block are
// one tensor here, [B,S,H]: the bytes are the same, text first.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/block_builder.h"
#include "model/family.h"
#include "model/image_parts.h"

namespace steelyard::model {

// What a variational autoencoder makes of a picture or a video.
struct Latents {
  std::int64_t frames = 1, height = 0, width = 0, channels = 16;
  std::int64_t side = 8;  // pixels of one latent
  std::int64_t time = 1;  // frames of one latent behind the first; 1: pictures
};

// The job's picture or video, else the configuration's own latents.
[[nodiscard]] Latents latents_of(const SampleShape& sample, Latents own);

struct TextShape {
  std::int64_t tokens = 0, width = 0;
  std::int64_t pooled = 0;  // width of one vector per sample; 0: none
};

// Shared tensors, in this order: latents, time steps, text, target, pooled text (where there is),
// then those that the blocks make.
constexpr TensorRef kLatents{true, 0};
constexpr TensorRef kTimeSteps{true, 1};
constexpr TensorRef kText{true, 2};
constexpr TensorRef kDenoised{true, 3};
constexpr TensorRef kPooledText{true, 4};

// out_channels: null means as many as come in (`inputs`), absent the class's own default.
[[nodiscard]] std::int64_t output_channels(ConfigReader& config, std::int64_t fallback,
                                           std::int64_t inputs);
[[nodiscard]] Graph start_diffusion_graph(const ConfigReader& config, const SampleShape& sample,
                                          const Latents& latents, const TextShape& text,
                                          std::int64_t outputs);
// A tensor [...] that a block makes and all others read.
TensorRef add_shared(Graph& graph, const std::string& name, Shape shape);

// Checks that a side is a multiple of the patch.
void check_latent_patches(ConfigReader& config, const Latents& latents, std::int64_t patch);

// linear_1, an activation, linear_2 (TimestepEmbedding, PixArtAlphaTextProjection).
struct TwoLinears {
  std::string name;
  std::int64_t inner = 0, outputs = 0;
  ActivationKind activation = ActivationKind::silu;
};
TensorRef add_two_linears(BlockBuilder& block, TensorRef in, const TwoLinears& part);
// Time steps as sines and cosines, then two linears.
TensorRef add_time_embedding(BlockBuilder& block, const std::string& name, std::int64_t channels,
                             std::int64_t width);
// CombinedTimestepTextProjEmbeddings and CombinedTimestepGuidanceTextProjEmbeddings.
TensorRef add_time_text_embedding(BlockBuilder& block, const std::string& name, std::int64_t width,
                                  bool guidance);

// linear(silu(condition)) in `count` parts of [B,width].
std::vector<TensorRef> add_modulation(BlockBuilder& block, const std::string& linear,
                                      TensorRef condition, std::int64_t count, std::int64_t width);

// FeedForward: net.0.proj, the activation, net.2. `gated`: GEGLU.
TensorRef add_feed_forward(BlockBuilder& block, const std::string& name, TensorRef in,
                           std::int64_t inner, ActivationKind activation);

// activation_fn of FeedForward.
[[nodiscard]] ActivationKind feed_forward_activation(ConfigReader& config);

// AdaLayerNormContinuous over [B,S,H], then the projection of each token and the loss.
struct DiffusionHead {
  TensorRef x, condition;
  std::int64_t outputs = 0;  // of a token
};
[[nodiscard]] Block finish_diffusion(BlockBuilder& block, const DiffusionHead& head);
// The loss of predicted tokens against the target.
[[nodiscard]] Block finish_prediction(BlockBuilder& block, TensorRef prediction);

}  // namespace steelyard::model
