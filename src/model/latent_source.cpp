#include "model/latent_source.h"

#include <algorithm>

namespace steelyard::model {

namespace {

bool is_named(const TensorInfo& tensor, std::string_view name) {
  return tensor.name == name;
}

bool is_drawn(const TensorInfo& tensor) {
  return is_named(tensor, "noise") || is_named(tensor, "timesteps");
}

std::int64_t bytes_of(const TensorInfo& tensor) {
  constexpr std::int64_t kReal = 4, kToken = 8;
  const bool ids = tensor.kind == ElementKind::token_ids || tensor.kind == ElementKind::index;
  return checked_multiply(ids ? kToken : kReal, elements(tensor.shape));
}

}  // namespace

bool is_autoencoder(std::string_view class_name) {
  return class_name.starts_with("Autoencoder");
}

bool reads_latents(const Graph& graph) {
  return graph.library == "diffusers" &&
         std::any_of(graph.batch_tensors.begin(), graph.batch_tensors.end(), is_drawn);
}

TensorInfo pixels_of(const Graph& graph) {
  constexpr std::int64_t kColours = 3;
  Shape shape = {graph.batch, kColours, graph.image_height, graph.image_width};
  if (graph.frames > 0) shape.insert(shape.begin() + 1, graph.frames);
  return {"pixel_values", std::move(shape), ElementKind::pixels};
}

Bytes brought_bytes(const Graph& graph, Brought as) {
  const bool latents = reads_latents(graph);
  std::int64_t bytes = latents && as.pixels ? bytes_of(pixels_of(graph)) : 0;
  for (const TensorInfo& tensor : graph.batch_tensors) {
    if (latents && is_drawn(tensor)) continue;
    const bool picture = tensor.name.ends_with("latents");  // UNets' are "noisy_latents"
    if (latents && picture && as.pixels) continue;
    if (latents && !picture && as.tokens) {
      // Of the text the tokens alone, one of each of its states.
      if (!is_named(tensor, "encoder_hidden_states")) continue;
      const TensorInfo ids = {
          "ids", {tensor.shape.at(0), tensor.shape.at(1)}, ElementKind::token_ids};
      bytes = checked_add(bytes, bytes_of(ids));
      continue;
    }
    bytes = checked_add(bytes, bytes_of(tensor));
  }
  return Bytes(bytes);
}

}  // namespace steelyard::model
