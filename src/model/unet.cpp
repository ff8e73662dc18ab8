// UNet2DConditionModel (diffusers: models/unets/unet_2d_condition.py), the noise predictor of
// Stable Diffusion 1, 2 and XL. The network is one block: the outputs of the way down are read
// again on the way up, so that no part of it stands for itself.
#include <algorithm>

#include "model/diffusion_parts.h"
#include "model/family.h"
#include "model/image_parts.h"

namespace steelyard::model {

namespace {

// The usual autoencoder of these networks makes one latent pixel of 8 x 8.
constexpr std::int64_t kLatentScale = 8;

struct UNet {
  Picture latents;
  std::int64_t outputs = 4, context = 1280, tokens = 77, groups = 32;
  std::vector<std::int64_t> channels, layers, heads, transformers;  // by block on the way down
  std::vector<bool> down_attends, up_attends;
  bool middle_attends = true;
  bool linear_projection = false;
  std::int64_t conditions = 0;  // width of SDXL's further conditions; 0: none
};

// Shared tensors, all of the batch as far as the network is concerned.
constexpr TensorRef kSample{true, 0};
constexpr TensorRef kSteps{true, 1};
constexpr TensorRef kContext{true, 2};
constexpr TensorRef kTarget{true, 3};
constexpr TensorRef kConditions{true, 4};

class UNetWriter {
 public:
  UNetWriter(const Graph& graph, const UNet& net)
      : graph_(graph), net_(net), block_(graph, "embed") {}

  Block write() {
    embed_time();
    x_ = block_.conv("conv_in", kSample, net_.channels.front(), kSame);
    skips_.push_back(x_);
    for (std::size_t i = 0; i < net_.channels.size(); ++i) down(i);
    middle();
    for (std::size_t i = 0; i < net_.channels.size(); ++i) up(i);
    x_ = block_.group_norm("conv_norm_out", x_, net_.groups);
    x_ = block_.activation("conv_act", x_, ActivationKind::silu);
    x_ = block_.conv("conv_out", x_, net_.outputs, kSame);
    return block_.finish(block_.loss(OperatorKind::squared_loss, {x_, kTarget}, "loss"));
  }

 private:
  static constexpr ConvOptions kSame{.kernel = 3, .padding = 1, .bias = true};

  TensorRef two_linears(const std::string& name, TensorRef x) {
    const std::int64_t width = 4 * net_.channels.front();
    x = block_.linear(name + ".linear_1", x, width, {.bias = true});
    x = block_.activation(name + ".act", x, ActivationKind::silu);
    return block_.linear(name + ".linear_2", x, width, {.bias = true});
  }

  void embed_time() {
    time_ = block_.timestep_embedding("time_proj", kSteps, net_.channels.front());
    time_ = two_linears("time_embedding", time_);
    if (net_.conditions == 0) return;
    time_ = block_.add("add_conditions", time_, two_linears("add_embedding", kConditions));
  }

  void resnet(const std::string& name, std::int64_t channels) {
    x_ = add_diffusion_resnet(block_, x_, time_, {name, channels, net_.groups});
  }

  void attend(const std::string& name, std::size_t level) {
    x_ = add_diffusion_transformer(
        block_, x_, kContext,
        {name, net_.heads[level], net_.transformers[level], net_.groups, net_.linear_projection});
  }

  void down(std::size_t level) {
    const std::string name = "down_blocks." + std::to_string(level);
    for (std::int64_t j = 0; j < net_.layers[level]; ++j) {
      resnet(name + ".resnets." + std::to_string(j), net_.channels[level]);
      if (net_.down_attends[level]) attend(name + ".attentions." + std::to_string(j), level);
      skips_.push_back(x_);
    }
    if (level + 1 == net_.channels.size()) return;
    x_ = block_.conv(name + ".downsamplers.0.conv", x_, net_.channels[level],
                     {.kernel = 3, .stride = 2, .padding = 1, .bias = true});
    skips_.push_back(x_);
  }

  void middle() {
    const std::size_t last = net_.channels.size() - 1;
    resnet("mid_block.resnets.0", net_.channels[last]);
    if (net_.middle_attends) attend("mid_block.attentions.0", last);
    resnet("mid_block.resnets.1", net_.channels[last]);
  }

  // One layer more than on the way down; each reads what the way down left.
  void up(std::size_t step) {
    const std::size_t level = net_.channels.size() - 1 - step;
    const std::string name = "up_blocks." + std::to_string(step);
    for (std::int64_t j = 0; j <= net_.layers[level]; ++j) {
      const std::string number = std::to_string(j);
      x_ = block_.concatenate(name + ".skip." + number, x_, skips_.back());
      skips_.pop_back();
      resnet(name + ".resnets." + number, net_.channels[level]);
      if (net_.up_attends[step]) attend(name + ".attentions." + number, level);
    }
    if (level == 0) return;
    const Shape target = block_.shape(skips_.back());
    x_ = block_.upsample(name + ".upsamplers.0", x_, target.at(2), target.at(3));
    x_ = block_.conv(name + ".upsamplers.0.conv", x_, net_.channels[level], kSame);
  }

  const Graph& graph_;
  const UNet& net_;
  BlockBuilder block_;
  TensorRef x_, time_;
  std::vector<TensorRef> skips_;
};

// Types of blocks: those with cross attention, and those without any.
std::vector<bool> attends(ConfigReader& config, std::string_view key,
                          const std::vector<std::string>& types, std::string_view with,
                          std::string_view without) {
  std::vector<bool> answers;
  for (const std::string& type : types) {
    if (type != with && type != without) {
      config.reject(key, "\"" + type + "\"", std::string(with) + " or " + std::string(without));
    }
    answers.push_back(type == with);
  }
  return answers;
}

void read_blocks(ConfigReader& config, UNet& net) {
  net.channels = config.whole_list({"block_out_channels"}, {320, 640, 1280, 1280}, kChannelLimits);
  const std::size_t levels = net.channels.size();
  constexpr Limits kCountLimits{1, 1024};  // layers, heads, transformer blocks of a level
  const auto per_level = [&](ConfigReader::Keys keys, std::int64_t fallback) {
    return config.whole_list(keys, std::vector<std::int64_t>(levels, fallback), kCountLimits,
                             levels);
  };
  net.layers = per_level({"layers_per_block"}, 2);
  // diffusers takes attention_head_dim for the number of heads where that is not given.
  net.heads = per_level({"num_attention_heads", "attention_head_dim"}, 8);
  net.transformers = per_level({"transformer_layers_per_block"}, 1);
  std::vector<std::string> down = config.text_list({"down_block_types"});
  std::vector<std::string> up = config.text_list({"up_block_types"});
  if (down.empty()) {
    down.assign(levels, "CrossAttnDownBlock2D");
    down.back() = "DownBlock2D";
  }
  if (up.empty()) {
    up.assign(levels, "CrossAttnUpBlock2D");
    up.front() = "UpBlock2D";
  }
  net.down_attends =
      attends(config, "down_block_types", down, "CrossAttnDownBlock2D", "DownBlock2D");
  net.up_attends = attends(config, "up_block_types", up, "CrossAttnUpBlock2D", "UpBlock2D");
  for (const std::size_t size : {net.layers.size(), net.heads.size(), net.transformers.size(),
                                 net.down_attends.size(), net.up_attends.size()}) {
    if (size == levels) continue;
    config.reject("block_out_channels", std::to_string(levels) + " blocks",
                  "lists of one length for blocks, layers, heads and types");
    net = UNet();
    return;
  }
  for (std::size_t i = 0; i < levels; ++i) {
    (void)divided_heads(config, net.channels[i], net.heads[i], "block_out_channels",
                        "attention_head_dim");
    (void)divided_heads(config, net.channels[i], net.groups, "block_out_channels",
                        "norm_num_groups");
  }
}

void check_sides(ConfigReader& config, const UNet& net) {
  const auto halvings = static_cast<std::int64_t>(net.channels.size()) - 1;
  const std::int64_t multiple = std::int64_t{1} << std::clamp<std::int64_t>(halvings, 0, 32);
  for (const std::int64_t side : {net.latents.height, net.latents.width}) {
    if (side > 0 && side % multiple == 0) continue;
    config.reject("sample_size", std::to_string(side) + " latent pixels",
                  "a multiple of " + std::to_string(multiple),
                  "train.image_size in pixels is 8 times as much");
  }
}

// Keys of the class that would change the network, and the one value that is built; none of them is
// set in Stable Diffusion's files. null and absent mean the same.
void check_unbuilt(ConfigReader& config) {
  struct Key {
    const char* name;
    facts::Value built;
    const char* shown;
  };
  static const std::vector<Key> kKeys = {
      {"attention_type", "default", "\"default\""},
      {"class_embed_type", {}, "null"},
      {"conv_in_kernel", 3, "3"},
      {"conv_out_kernel", 3, "3"},
      {"cross_attention_norm", {}, "null"},
      {"dual_cross_attention", false, "false"},
      {"encoder_hid_dim", {}, "null"},
      {"num_class_embeds", {}, "null"},
      {"only_cross_attention", false, "false"},
      {"resnet_time_scale_shift", "default", "\"default\""},
      {"time_cond_proj_dim", {}, "null"},
      {"time_embedding_dim", {}, "null"},
      {"time_embedding_type", "positional", "\"positional\""},
  };
  for (const Key& key : kKeys) {
    const facts::Value& found = config.value(key.name);
    if (found.is_null() || found == key.built) continue;
    config.reject({.code = ErrorCode::not_supported,
                   .subject = config.subject_of(key.name),
                   .found = "another value",
                   .accepted = key.shown,
                   .hint = "this variant of the UNet is not built in this version"});
  }
}

UNet read_unet(ConfigReader& config, const SampleShape& sample) {
  UNet net;
  check_unbuilt(config);
  const std::int64_t side = config.whole({"sample_size"}, 64, kSideLimits);
  const std::int64_t inputs = config.whole({"in_channels"}, 4, kChannelLimits);
  net.latents = {side, side, inputs};
  if (sample.height > 0) {
    net.latents = {sample.height / kLatentScale, sample.width / kLatentScale, inputs};
  }
  net.outputs = config.whole({"out_channels"}, 4, kChannelLimits);
  net.context = config.whole({"cross_attention_dim"}, 1280, kHiddenLimits);
  net.groups = config.whole({"norm_num_groups"}, 32, kChannelLimits);
  net.linear_projection = config.flag({"use_linear_projection"}, false);
  const std::string middle = config.choice({"mid_block_type"}, "UNetMidBlock2DCrossAttn",
                                           {"UNetMidBlock2DCrossAttn", "UNetMidBlock2D"});
  net.middle_attends = middle == "UNetMidBlock2DCrossAttn";
  if (config.has("addition_embed_type")) {
    (void)config.choice({"addition_embed_type"}, "text_time", {"text_time"});
    net.conditions = config.whole({"projection_class_embeddings_input_dim"}, 2816, kHiddenLimits);
  }
  read_blocks(config, net);
  check_sides(config, net);
  return net;
}

}  // namespace

Graph build_unet(ConfigReader& config, const SampleShape& sample) {
  const UNet net = read_unet(config, sample);
  Graph graph = start_picture_graph(config, sample, net.latents);
  graph.library = "diffusers";
  graph.image_height = net.latents.height * kLatentScale;
  graph.image_width = net.latents.width * kLatentScale;
  const Shape picture = {graph.batch, net.latents.channels, net.latents.height, net.latents.width};
  Shape target = picture;
  target.at(1) = net.outputs;
  graph.shared = {
      {"noisy_latents", picture, ElementKind::pixels},
      {"timesteps", {graph.batch}, ElementKind::token_ids},
      {"encoder_hidden_states", {graph.batch, net.tokens, net.context}, ElementKind::pixels},
      {"noise", target, ElementKind::pixels}};
  if (net.conditions > 0) {
    graph.shared.push_back(
        {"added_conditions", {graph.batch, net.conditions}, ElementKind::pixels});
  }
  graph.batch_tensors = graph.shared;
  if (config.first_error()) return graph;
  graph.hidden = net.channels.back();
  graph.segments.push_back({1, {UNetWriter(graph, net).write()}});
  return graph;
}

}  // namespace steelyard::model
