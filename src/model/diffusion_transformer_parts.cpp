#include "model/diffusion_transformer_parts.h"

namespace steelyard::model {

namespace {

constexpr LinearOptions kBiased{.bias = true};
constexpr std::int64_t kTimeChannels = 256;  // Timesteps(num_channels=256)

}  // namespace

Latents latents_of(const SampleShape& sample, Latents own) {
  if (sample.height > 0 && sample.width > 0) {
    own.height = sample.height / own.side;
    own.width = sample.width / own.side;
  }
  // A causal video autoencoder keeps the first frame and joins those behind it.
  if (sample.frames > 0 && own.time > 1) own.frames = (sample.frames - 1) / own.time + 1;
  return own;
}

std::int64_t output_channels(ConfigReader& config, std::int64_t fallback, std::int64_t inputs) {
  return config.is_null("out_channels") ? inputs
                                        : config.whole({"out_channels"}, fallback, kChannelLimits);
}

Graph start_diffusion_graph(const ConfigReader& config, const SampleShape& sample,
                            const Latents& latents, const TextShape& text, std::int64_t outputs) {
  Graph graph;
  graph.name = config.name();
  graph.library = "diffusers";
  graph.batch = sample.batch;
  graph.image_height = latents.height * latents.side;
  graph.image_width = latents.width * latents.side;
  if (latents.time > 1) graph.frames = (latents.frames - 1) * latents.time + 1;
  const std::int64_t rows = latents.frames * latents.height;
  graph.shared = {
      {"latents", {graph.batch, latents.channels, rows, latents.width}, ElementKind::pixels},
      {"timesteps", {graph.batch}, ElementKind::token_ids},
      {"encoder_hidden_states", {graph.batch, text.tokens, text.width}, ElementKind::pixels},
      {"noise", {graph.batch, outputs, rows, latents.width}, ElementKind::pixels}};
  if (text.pooled > 0) {
    graph.shared.push_back({"pooled_projections", {graph.batch, text.pooled}, ElementKind::pixels});
  }
  graph.batch_tensors = graph.shared;
  return graph;
}

TensorRef add_shared(Graph& graph, const std::string& name, Shape shape) {
  graph.shared.push_back({name, std::move(shape), ElementKind::real});
  return {true, static_cast<std::int32_t>(graph.shared.size()) - 1};
}

void check_latent_patches(ConfigReader& config, const Latents& latents, std::int64_t patch) {
  for (const std::int64_t side : {latents.height, latents.width}) {
    if (side > 0 && side % patch == 0) continue;
    config.reject(
        "patch_size", std::to_string(patch),
        "a divisor of the " + std::to_string(side) + " latent pixels of a side",
        "train.image_size in pixels is " + std::to_string(latents.side) + " times as much");
  }
}

TensorRef add_two_linears(BlockBuilder& block, TensorRef in, const TwoLinears& part) {
  TensorRef x = block.linear(part.name + ".linear_1", in, part.inner, kBiased);
  x = block.activation(part.name + ".act_1", x, part.activation);
  return block.linear(part.name + ".linear_2", x, part.outputs, kBiased);
}

TensorRef add_time_embedding(BlockBuilder& block, const std::string& name, std::int64_t channels,
                             std::int64_t width) {
  const TensorRef x = block.timestep_embedding(name + ".time_proj", kTimeSteps, channels);
  return add_two_linears(block, x, {name, width, width});
}

TensorRef add_time_text_embedding(BlockBuilder& block, const std::string& name, std::int64_t width,
                                  bool guidance) {
  TensorRef x = add_time_embedding(block, name + ".timestep_embedder", kTimeChannels, width);
  if (guidance) {
    const TensorRef more =
        add_time_embedding(block, name + ".guidance_embedder", kTimeChannels, width);
    x = block.add(name + ".add_guidance", x, more);
  }
  const TensorRef text =
      add_two_linears(block, kPooledText, {name + ".text_embedder", width, width});
  return block.add(name, x, text);
}

std::vector<TensorRef> add_modulation(BlockBuilder& block, const std::string& linear,
                                      TensorRef condition, std::int64_t count, std::int64_t width) {
  TensorRef x = block.activation(linear + ".silu", condition, ActivationKind::silu);
  x = block.linear(linear, x, count * width, kBiased);
  return block.chunk(linear + ".chunk", x, count);
}

TensorRef add_feed_forward(BlockBuilder& block, const std::string& name, TensorRef in,
                           std::int64_t inner, ActivationKind activation) {
  const std::int64_t width = block.width(in);
  TensorRef x = block.linear(name + ".net.0.proj", in, inner, kBiased);
  x = block.activation(name + ".net.0", x, activation);
  return block.linear(name + ".net.2", x, width, kBiased);
}

ActivationKind feed_forward_activation(ConfigReader& config) {
  const std::string name =
      config.choice({"activation_fn"}, "gelu-approximate", {"gelu-approximate", "gelu"});
  return name == "gelu" ? ActivationKind::gelu : ActivationKind::gelu_tanh;
}

Block finish_prediction(BlockBuilder& block, TensorRef prediction) {
  // The tokens are put together to the picture: a copy in another order.
  const TensorRef seen = block.view("unpatchify", prediction, block.shape(kDenoised), true);
  const TensorRef picture = block.contiguous("output", seen);
  return block.finish(block.loss(OperatorKind::squared_loss, {picture, kDenoised}, "loss"));
}

Block finish_diffusion(BlockBuilder& block, const DiffusionHead& head) {
  const std::int64_t width = block.width(head.x);
  const auto parts = add_modulation(block, "norm_out.linear", head.condition, 2, width);
  TensorRef x = block.layer_norm("norm_out.norm", head.x, {.weight = false, .bias = false});
  x = block.modulate("norm_out", x, parts[0], parts[1]);
  return finish_prediction(block, block.linear("proj_out", x, head.outputs, kBiased));
}

}  // namespace steelyard::model
