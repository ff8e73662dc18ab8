// What the loader brings of a micro-batch, in host memory. A diffusion model's latents are made on
// the card of pictures or videos in pixels where an autoencoder is there too, and its text's states
// of tokens (diffusers: train_dreambooth.py, train_cogvideox_lora.py); noise and time steps are
// drawn there in any case.
#pragma once

#include <string_view>

#include "base/quantity.h"
#include "model/graph.h"

namespace steelyard::model {

// By the companion's class: "AutoencoderKL", "AutoencoderKLCogVideoX".
[[nodiscard]] bool is_autoencoder(std::string_view class_name);

// The graph reads latents, whatever made them.
[[nodiscard]] bool reads_latents(const Graph& graph);

// Of the micro-batch of a graph that reads latents: [B,3,h,w] or [B,frames,3,h,w].
[[nodiscard]] TensorInfo pixels_of(const Graph& graph);

// What a graph that reads latents gets in their place: pixels, and tokens for the text's states.
struct Brought {
  bool pixels = false, tokens = false;
};

// Bytes of the micro-batch as loaders hand it over: torchvision and transformers make fp32 of
// pictures and sound whatever the model computes in, token ids are int64.
[[nodiscard]] Bytes brought_bytes(const Graph& graph, Brought as);

}  // namespace steelyard::model
