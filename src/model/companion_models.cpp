// Models that stand beside a denoiser and are not trained: text encoders (transformers:
// modeling_clip.py, modeling_t5.py, the encoder alone) and autoencoders (diffusers:
// models/autoencoders). What they hold is written down, and the products of what runs in training,
// without gradients: encoders. Decoders are held and wait for a picture to be shown.
#include <algorithm>

#include "model/companion_listing.h"
#include "model/diffusion_transformer_parts.h"

namespace steelyard::model {

namespace {

Graph start(const ConfigReader& config, const SampleShape& sample, std::int64_t width,
            std::int64_t layers) {
  Graph graph;
  graph.name = config.name();
  graph.batch = sample.batch;
  graph.hidden = width;
  graph.layers = layers;
  return graph;
}

const Shape kWindow = {3, 3}, kPoint = {1, 1}, kCube = {3, 3, 3}, kPoint3d = {1, 1, 1};

std::string numbered(const std::string& name, std::int64_t i) {
  return name + "." + std::to_string(i);
}

// --- AutoencoderKL ---

struct Autoencoder {
  std::vector<std::int64_t> channels;
  std::int64_t layers = 1, latents = 4, inputs = 3, outputs = 3;
  std::int64_t halved_frames = 0;  // levels that halve the frames of a video
  bool middle_attends = true, quantizes = true, post_quantizes = true;
};

void resnet(Listing& list, const std::string& name, std::int64_t in, std::int64_t out) {
  list.norm(name + ".norm1", in);
  list.conv(name + ".conv1", in, out, kWindow);
  list.norm(name + ".norm2", out);
  list.conv(name + ".conv2", out, out, kWindow);
  if (in != out) list.conv(name + ".conv_shortcut", in, out, kPoint);
}

void middle(Listing& list, const std::string& name, const Autoencoder& net) {
  const std::int64_t width = net.channels.back();
  resnet(list, name + ".mid_block.resnets.0", width, width);
  if (net.middle_attends) {
    const std::string attention = name + ".mid_block.attentions.0";
    list.norm(attention + ".group_norm", width);
    for (const char* part : {".to_q", ".to_k", ".to_v", ".to_out.0"}) {
      list.linear(attention + part, width, width);
    }
    list.attention(attention, 1, width);
  }
  resnet(list, name + ".mid_block.resnets.1", width, width);
}

void encoder(Listing& list, const Autoencoder& net) {
  list.conv("encoder.conv_in", net.inputs, net.channels.front(), kWindow);
  std::int64_t width = net.channels.front();
  for (std::size_t i = 0; i < net.channels.size(); ++i) {
    const std::string level = numbered("encoder.down_blocks", static_cast<std::int64_t>(i));
    for (std::int64_t j = 0; j < net.layers; ++j) {
      resnet(list, numbered(level + ".resnets", j), width, net.channels[i]);
      width = net.channels[i];
    }
    if (i + 1 < net.channels.size()) {
      list.halve_sides();
      list.conv(level + ".downsamplers.0.conv", width, width, kWindow);
    }
  }
  middle(list, "encoder", net);
  list.norm("encoder.conv_norm_out", width);
  list.conv("encoder.conv_out", width, 2 * net.latents, kWindow);
}

void decoder(Listing& list, const Autoencoder& net) {
  std::int64_t width = net.channels.back();
  list.conv("decoder.conv_in", net.latents, width, kWindow);
  middle(list, "decoder", net);
  for (std::size_t i = 0; i < net.channels.size(); ++i) {
    const std::string level = numbered("decoder.up_blocks", static_cast<std::int64_t>(i));
    const std::int64_t own = net.channels[net.channels.size() - 1 - i];
    for (std::int64_t j = 0; j <= net.layers; ++j) {
      resnet(list, numbered(level + ".resnets", j), width, own);
      width = own;
    }
    if (i + 1 < net.channels.size()) list.conv(level + ".upsamplers.0.conv", width, width, kWindow);
  }
  list.norm("decoder.conv_norm_out", width);
  list.conv("decoder.conv_out", width, net.outputs, kWindow);
}

// --- AutoencoderKLCogVideoX ---

// CogVideoXSpatialNorm3D: a norm, and the latents as scale and shift.
void spatial_norm(Listing& list, const std::string& name, std::int64_t width,
                  std::int64_t latents) {
  list.norm(name + (latents > 0 ? ".norm_layer" : ""), width);
  if (latents == 0) return;
  list.conv(name + ".conv_y.conv", latents, width, kPoint3d);
  list.conv(name + ".conv_b.conv", latents, width, kPoint3d);
}

void causal_resnet(Listing& list, const std::string& name, std::int64_t in, std::int64_t out,
                   std::int64_t latents) {
  spatial_norm(list, name + ".norm1", in, latents);
  spatial_norm(list, name + ".norm2", out, latents);
  list.conv(name + ".conv1.conv", in, out, kCube);
  list.conv(name + ".conv2.conv", out, out, kCube);
  if (in != out) list.conv(name + ".conv_shortcut", in, out, kPoint3d);
}

void causal_coder(Listing& list, const std::string& name, const Autoencoder& net, bool decodes) {
  std::vector<std::int64_t> channels = net.channels;
  if (decodes) std::reverse(channels.begin(), channels.end());
  const std::int64_t latents = decodes ? net.latents : 0;
  const std::string blocks = name + (decodes ? ".up_blocks" : ".down_blocks");
  std::int64_t width = channels.front();
  list.conv(name + ".conv_in.conv", decodes ? net.latents : net.inputs, width, kCube);
  if (decodes) {
    for (std::int64_t j = 0; j < 2; ++j) {
      causal_resnet(list, numbered(name + ".mid_block.resnets", j), width, width, latents);
    }
  }
  for (std::size_t i = 0; i < channels.size(); ++i) {
    const std::string level = numbered(blocks, static_cast<std::int64_t>(i));
    for (std::int64_t j = 0; j < net.layers + (decodes ? 1 : 0); ++j) {
      causal_resnet(list, numbered(level + ".resnets", j), width, channels[i], latents);
      width = channels[i];
    }
    if (i + 1 == channels.size()) continue;
    list.halve_sides();
    if (static_cast<std::int64_t>(i) < net.halved_frames) list.halve_frames();
    list.conv(level + (decodes ? ".upsamplers.0.conv" : ".downsamplers.0.conv"), width, width,
              kWindow);
  }
  if (!decodes) {
    for (std::int64_t j = 0; j < 2; ++j) {
      causal_resnet(list, numbered(name + ".mid_block.resnets", j), width, width, latents);
    }
  }
  spatial_norm(list, name + ".norm_out", width, latents);
  list.conv(name + ".conv_out.conv", width, decodes ? net.outputs : 2 * net.latents, kCube);
}

// --- AutoencoderKLLTXVideo ---

// LTXVideoResnetBlock3d: norms without weights but where the width changes.
void plain_resnet(Listing& list, const std::string& name, std::int64_t in, std::int64_t out) {
  list.conv(name + ".conv1.conv", in, out, kCube);
  list.conv(name + ".conv2.conv", out, out, kCube);
  if (in == out) return;
  list.norm(name + ".norm3", in);
  list.conv(name + ".conv_shortcut.conv", in, out, kPoint3d);
}

struct LtxCoder {
  std::vector<std::int64_t> channels, layers, scales;  // scales: 1 where a level halves the sides
  std::int64_t latents = 128, pixels = 48;             // of a patch of pixels
};

void plain_resnets(Listing& list, const std::string& name, std::int64_t count, std::int64_t width) {
  for (std::int64_t j = 0; j < count; ++j) {
    plain_resnet(list, numbered(name + ".resnets", j), width, width);
  }
}

void ltx_encoder(Listing& list, const LtxCoder& net) {
  std::int64_t width = net.channels.front();
  list.conv("encoder.conv_in.conv", net.pixels, width, kCube);
  for (std::size_t i = 0; i < net.channels.size(); ++i) {
    const std::string level = numbered("encoder.down_blocks", static_cast<std::int64_t>(i));
    const std::int64_t next = net.channels[std::min(i + 1, net.channels.size() - 1)];
    plain_resnets(list, level, net.layers[i], width);
    if (net.scales[i] != 0) {
      list.halve_sides();
      list.halve_frames();
      list.conv(level + ".downsamplers.0.conv", width, width, kCube);
    }
    if (next != width) plain_resnet(list, level + ".conv_out", width, next);
    width = next;
  }
  plain_resnets(list, "encoder.mid_block", net.layers.back(), width);
  list.conv("encoder.conv_out.conv", width, net.latents + 1, kCube);
}

void ltx_decoder(Listing& list, const LtxCoder& net) {
  constexpr std::int64_t kFolded = 8;  // 2 x 2 x 2 pixels out of channels
  std::int64_t width = net.channels.back();
  list.conv("decoder.conv_in.conv", net.latents, width, kCube);
  plain_resnets(list, "decoder.mid_block", net.layers.back(), width);
  const std::size_t levels = net.channels.size();
  for (std::size_t i = 0; i < levels; ++i) {
    const std::string level = numbered("decoder.up_blocks", static_cast<std::int64_t>(i));
    const std::int64_t own = net.channels[levels - 1 - i];
    if (own != width) plain_resnet(list, level + ".conv_in", width, own);
    if (net.scales[levels - 1 - i] != 0) {
      list.conv(level + ".upsamplers.0.conv.conv", own, kFolded * own, kCube);
    }
    plain_resnets(list, level, net.layers[levels - 1 - i], own);
    width = own;
  }
  list.conv("decoder.conv_out.conv", width, net.pixels, kCube);
}

// Without a picture's size nothing of an autoencoder is said to run.
bool list_runs(const SampleShape& sample) {
  return sample.height > 0 && sample.width > 0;
}

constexpr Limits kCountLimits{1, 1024};

Autoencoder read_autoencoder(ConfigReader& config, std::vector<std::int64_t> channels,
                             std::int64_t layers, std::int64_t latents) {
  Autoencoder net;
  net.channels = config.whole_list({"block_out_channels"}, std::move(channels), kChannelLimits);
  net.layers = config.whole({"layers_per_block"}, layers, kCountLimits);
  net.latents = config.whole({"latent_channels"}, latents, kChannelLimits);
  net.inputs = config.whole({"in_channels"}, 3, kChannelLimits);
  net.outputs = config.whole({"out_channels"}, 3, kChannelLimits);
  return net;
}

}  // namespace

Graph build_autoencoder_kl(ConfigReader& config, const SampleShape& sample) {
  Autoencoder net = read_autoencoder(config, {64}, 1, 4);
  net.middle_attends = config.flag({"mid_block_add_attention"}, true);
  net.quantizes = config.flag({"use_quant_conv"}, true);
  net.post_quantizes = config.flag({"use_post_quant_conv"}, true);
  Graph graph = start(config, sample, net.channels.back(), 0);
  Listing list(graph, "embed");
  list.reads(pixels_read(sample.batch, sample.frames, sample.height, sample.width, false));
  encoder(list, net);
  list.reads_nothing();
  decoder(list, net);
  if (net.quantizes) list.conv("quant_conv", 2 * net.latents, 2 * net.latents, kPoint);
  if (net.post_quantizes) list.conv("post_quant_conv", net.latents, net.latents, kPoint);
  list.end();
  return graph;
}

Graph build_autoencoder_cogvideox(ConfigReader& config, const SampleShape& sample) {
  Autoencoder net = read_autoencoder(config, {128, 256, 256, 512}, 3, 16);
  net.quantizes = config.flag({"use_quant_conv"}, false);
  net.post_quantizes = config.flag({"use_post_quant_conv"}, false);
  Graph graph = start(config, sample, net.channels.back(), 0);
  // Eight frames go through at a time (autoencoder_kl_cogvideox.py, num_sample_frames_batch_size).
  constexpr std::int64_t kFramesAtOnce = 8;
  const std::int64_t passes = std::max<std::int64_t>(1, sample.frames / kFramesAtOnce);
  net.halved_frames = 2;  // temporal_compression_ratio = 4
  Listing list(graph, "embed");
  list.reads(pixels_read(sample.batch, ceil_divide(sample.frames, passes), sample.height,
                         sample.width, true));
  causal_coder(list, "encoder", net, false);
  list.reads_nothing();
  causal_coder(list, "decoder", net, true);
  if (net.quantizes) list.conv("quant_conv.conv", 2 * net.outputs, 2 * net.outputs, kPoint3d);
  if (net.post_quantizes) {
    list.conv("post_quant_conv.conv", net.outputs, net.outputs, kPoint3d);
  }
  list.end_in_passes(list_runs(sample) ? passes : 1);
  return graph;
}

Graph build_autoencoder_ltx(ConfigReader& config, const SampleShape& sample) {
  LtxCoder net;
  net.channels = config.whole_list({"block_out_channels"}, {128, 256, 512, 512}, kChannelLimits);
  net.layers = config.whole_list({"layers_per_block"}, {4, 3, 3, 3, 4}, kCountLimits);
  net.latents = config.whole({"latent_channels"}, 128, kChannelLimits);
  const std::int64_t patch = config.whole({"patch_size"}, 4, kSideLimits);
  net.pixels = 3 * patch * patch;
  net.scales.assign(net.channels.size(), 1);
  net.scales.back() = 0;
  if (net.layers.size() != net.channels.size() + 1) {
    config.reject("layers_per_block", std::to_string(net.layers.size()) + " numbers",
                  "one more than block_out_channels has");
    net.layers.assign(net.channels.size() + 1, 1);
  }
  if (config.flag({"timestep_conditioning"}, false)) {
    config.reject("timestep_conditioning", "true", "false", "LTX-Video 0.9.0's autoencoder");
  }
  Graph graph = start(config, sample, net.channels.back(), 0);
  Listing list(graph, "embed");
  list.reads(
      pixels_read(sample.batch, sample.frames, sample.height / patch, sample.width / patch, true));
  ltx_encoder(list, net);
  list.reads_nothing();
  ltx_decoder(list, net);
  list.end();
  return graph;
}

Graph build_clip_text(ConfigReader& config, const SampleShape& sample) {
  const std::int64_t width = config.whole({"hidden_size"}, 512, kHiddenLimits);
  const std::int64_t inner = config.whole({"intermediate_size"}, 2048, kWideLimits);
  const std::int64_t layers = config.whole({"num_hidden_layers"}, 12, kLayerLimits);
  const std::int64_t words = config.whole({"vocab_size"}, 49408, kVocabularyLimits);
  const std::int64_t positions = config.whole({"max_position_embeddings"}, 77, kPositionLimits);
  const std::int64_t projected = config.whole({"projection_dim"}, 512, kHiddenLimits);
  const std::vector<std::string> classes = config.text_list({"architectures"});
  Graph graph = start(config, sample, width, layers);
  const std::string root = "text_model.";
  Listing embed(graph, "embed");
  embed.weight(root + "embeddings.token_embedding.weight", {words, width}, WeightRole::embedding);
  embed.weight(root + "embeddings.position_embedding.weight", {positions, width},
               WeightRole::embedding);
  embed.end();
  Listing layer(graph, root + "encoder.layers");
  layer.reads({sample.batch, positions});  // padded to the longest (max_length)
  for (const char* part : {"k_proj", "v_proj", "q_proj", "out_proj"}) {
    layer.linear(std::string("self_attn.") + part, width, width);
  }
  const std::int64_t heads = config.whole({"num_attention_heads"}, 8, kHeadLimits);
  layer.attention("self_attn", heads, width);
  layer.norm("layer_norm1", width);
  layer.linear("mlp.fc1", width, inner);
  layer.linear("mlp.fc2", inner, width);
  layer.norm("layer_norm2", width);
  layer.end(layers);
  Listing head(graph, "head");
  head.norm(root + "final_layer_norm", width);
  head.reads({sample.batch, 1});
  if (!classes.empty() && classes.front() == "CLIPTextModelWithProjection") {
    head.linear("text_projection", width, projected, false);
  }
  head.end();
  return graph;
}

Graph build_t5_encoder(ConfigReader& config, const SampleShape& sample) {
  const std::int64_t width = config.whole({"d_model"}, 512, kHiddenLimits);
  const std::int64_t inner = config.whole({"d_ff"}, 2048, kWideLimits);
  const std::int64_t layers = config.whole({"num_layers"}, 6, kLayerLimits);
  const std::int64_t heads = config.whole({"num_heads"}, 8, kHeadLimits);
  const std::int64_t keys = config.whole({"d_kv"}, 64, kHiddenLimits);
  const std::int64_t words = config.whole({"vocab_size"}, 32128, kVocabularyLimits);
  const std::int64_t buckets =
      config.whole({"relative_attention_num_buckets"}, 32, kPositionLimits);
  const std::string feed_forward =
      config.choice({"feed_forward_proj"}, "relu", {"relu", "gated-gelu"});
  // UMT5 has a bias of positions in each layer, T5 in the first alone.
  const bool each = config.text({"model_type"}, "t5") == "umt5";
  Graph graph = start(config, sample, width, layers);
  Listing embed(graph, "embed");
  embed.weight("shared.weight", {words, width}, WeightRole::embedding);
  const std::string bias = "layer.0.SelfAttention.relative_attention_bias.weight";
  if (!each) {
    embed.weight("encoder.block.0." + bias, {buckets, heads}, WeightRole::embedding);
  }
  embed.end();
  Listing layer(graph, "encoder.block");
  if (sample.sequence > 0) layer.reads({sample.batch, sample.sequence});
  for (const char* part : {"q", "k", "v"}) {
    layer.linear(std::string("layer.0.SelfAttention.") + part, width, heads * keys, false);
  }
  layer.linear("layer.0.SelfAttention.o", heads * keys, width, false);
  layer.attention("layer.0.SelfAttention", heads, heads * keys);
  if (each) layer.weight(bias, {buckets, heads}, WeightRole::embedding);
  layer.norm("layer.0.layer_norm", width, false);
  if (feed_forward == "gated-gelu") {
    layer.linear("layer.1.DenseReluDense.wi_0", width, inner, false);
    layer.linear("layer.1.DenseReluDense.wi_1", width, inner, false);
  } else {
    layer.linear("layer.1.DenseReluDense.wi", width, inner, false);
  }
  layer.linear("layer.1.DenseReluDense.wo", inner, width, false);
  layer.norm("layer.1.layer_norm", width, false);
  layer.end(layers);
  Listing head(graph, "head");
  head.norm("encoder.final_layer_norm", width, false);
  head.end();
  return graph;
}

}  // namespace steelyard::model
