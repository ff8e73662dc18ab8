// The autoencoders of video models that have code of their own: Wan's and HunyuanVideo's.
// Sources: diffusers 0.39, models/autoencoders/autoencoder_kl_wan.py,
// autoencoder_kl_hunyuan_video.py.
#include <algorithm>
#include <bit>

#include "model/companion_listing.h"
#include "model/diffusion_transformer_parts.h"
#include "model/picture_families.h"

namespace steelyard::model {

namespace {

constexpr Limits kCountLimits{1, 1024};
const Shape kWindow = {3, 3}, kPoint = {1, 1}, kCube = {3, 3, 3}, kPoint3d = {1, 1, 1},
            kTaps = {3, 1, 1};

std::string numbered(const std::string& name, std::int64_t i) {
  return name + "." + std::to_string(i);
}

// --- AutoencoderKLWan ---

struct Wan {
  std::int64_t width = 96, decoder_width = 96, latents = 16, inputs = 3, outputs = 3, layers = 2;
  std::vector<std::int64_t> multiples;
  std::vector<bool> halves_frames;  // of all levels but the last
  bool residual = false;            // Wan 2.2: levels are blocks with a shortcut
};

// WanRMS_norm: one number per channel, [C,1,1,1] for videos, [C,1,1] for pictures.
void wan_norm(Listing& list, const std::string& name, std::int64_t width, bool video = true) {
  Shape shape = {width, 1, 1};
  if (video) shape.push_back(1);
  list.weight(name + ".gamma", std::move(shape), WeightRole::norm);
}

void wan_resnet(Listing& list, const std::string& name, std::int64_t in, std::int64_t out) {
  wan_norm(list, name + ".norm1", in);
  list.conv(name + ".conv1", in, out, kCube);
  wan_norm(list, name + ".norm2", out);
  list.conv(name + ".conv2", out, out, kCube);
  if (in != out) list.conv(name + ".conv_shortcut", in, out, kPoint3d);
}

void wan_middle(Listing& list, const std::string& name, std::int64_t width) {
  const std::string attention = name + ".mid_block.attentions.0";
  wan_norm(list, attention + ".norm", width, false);
  list.conv(attention + ".to_qkv", width, 3 * width, kPoint);
  list.conv(attention + ".proj", width, width, kPoint);
  for (std::int64_t i = 0; i < 2; ++i) {
    wan_resnet(list, numbered(name + ".mid_block.resnets", i), width, width);
  }
}

void wan_downsampler(Listing& list, const std::string& name, std::int64_t width, bool frames) {
  list.halve_sides();
  list.conv(name + ".resample.1", width, width, kWindow);
  if (!frames) return;
  list.halve_frames();
  list.conv(name + ".time_conv", width, width, kTaps);
}

void wan_encoder(Listing& list, const Wan& net) {
  std::int64_t width = net.width, place = 0;
  list.conv("encoder.conv_in", net.inputs, width, kCube);
  for (std::size_t i = 0; i < net.multiples.size(); ++i) {
    const std::int64_t own = net.width * net.multiples[i];
    const std::string level = numbered("encoder.down_blocks", static_cast<std::int64_t>(i));
    const auto next = [&] { return numbered("encoder.down_blocks", place++); };
    for (std::int64_t j = 0; j < net.layers; ++j) {
      wan_resnet(list, net.residual ? numbered(level + ".resnets", j) : next(), width, own);
      width = own;
    }
    if (i + 1 == net.multiples.size()) continue;
    wan_downsampler(list, net.residual ? level + ".downsampler" : next(), width,
                    net.halves_frames[i]);
  }
  wan_middle(list, "encoder", width);
  wan_norm(list, "encoder.norm_out", width);
  list.conv("encoder.conv_out", width, 2 * net.latents, kCube);
  list.conv("quant_conv", 2 * net.latents, 2 * net.latents, kPoint3d);
}

// Levels of Wan 2.1 hand on half of their channels.
void wan_decoder(Listing& list, const Wan& net) {
  const std::size_t levels = net.multiples.size();
  std::int64_t width = net.decoder_width * net.multiples.back();
  list.conv("post_quant_conv", net.latents, net.latents, kPoint3d);
  list.conv("decoder.conv_in", net.latents, width, kCube);
  wan_middle(list, "decoder", width);
  for (std::size_t i = 0; i < levels; ++i) {
    const std::int64_t own = net.decoder_width * net.multiples[levels - 1 - i];
    const std::string level = numbered("decoder.up_blocks", static_cast<std::int64_t>(i));
    for (std::int64_t j = 0; j <= net.layers; ++j) {
      wan_resnet(list, numbered(level + ".resnets", j), width, own);
      width = own;
    }
    if (i + 1 == levels) continue;
    const std::string up = level + (net.residual ? ".upsampler" : ".upsamplers.0");
    const std::int64_t handed_on = net.residual ? own : own / 2;
    list.conv(up + ".resample.1", own, handed_on, kWindow);
    if (net.halves_frames[levels - 2 - i]) list.conv(up + ".time_conv", own, 2 * own, kTaps);
    width = handed_on;
  }
  wan_norm(list, "decoder.norm_out", width);
  list.conv("decoder.conv_out", width, net.outputs, kCube);
}

std::vector<bool> flags_of(ConfigReader& config, const char* key, std::size_t count) {
  std::vector<bool> flags(count, true);
  if (!flags.empty()) flags.front() = false;
  const facts::Array* list = config.value(key).as_array();
  if (list == nullptr) return flags;
  if (list->size() != count) {
    config.reject(key, std::to_string(list->size()) + " values", "one less than dim_mult has");
    return flags;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const bool* flag = (*list)[i].as_bool();
    flags[i] = flag != nullptr && *flag;
  }
  return flags;
}

// --- AutoencoderKLHunyuanVideo ---

struct Hunyuan {
  std::vector<std::int64_t> channels;
  std::int64_t layers = 2, latents = 16, inputs = 3, outputs = 3;
  std::int64_t spatial = 3, temporal = 2;  // levels that halve sides and frames
  bool attends = true;

  [[nodiscard]] bool halves_sides(std::int64_t level) const { return level < spatial; }
  [[nodiscard]] bool halves_frames(std::int64_t level) const {
    const std::int64_t last = std::ssize(channels) - 1;
    return level >= last - temporal && level < last;
  }
};

void hunyuan_resnet(Listing& list, const std::string& name, std::int64_t in, std::int64_t out) {
  list.norm(name + ".norm1", in);
  list.conv(name + ".conv1.conv", in, out, kCube);
  list.norm(name + ".norm2", out);
  list.conv(name + ".conv2.conv", out, out, kCube);
  if (in != out) list.conv(name + ".conv_shortcut.conv", in, out, kPoint3d);
}

void hunyuan_middle(Listing& list, const std::string& name, const Hunyuan& net) {
  const std::int64_t width = net.channels.back();
  if (net.attends) {
    const std::string attention = name + ".mid_block.attentions.0";
    list.norm(attention + ".group_norm", width);
    for (const char* part : {".to_q", ".to_k", ".to_v", ".to_out.0"}) {
      list.linear(attention + part, width, width);
    }
    list.attention(attention, 1, width);
  }
  for (std::int64_t i = 0; i < 2; ++i) {
    hunyuan_resnet(list, numbered(name + ".mid_block.resnets", i), width, width);
  }
}

void hunyuan_encoder(Listing& list, const Hunyuan& net) {
  std::int64_t width = net.channels.front();
  list.conv("encoder.conv_in.conv", net.inputs, width, kCube);
  for (std::int64_t i = 0; i < std::ssize(net.channels); ++i) {
    const std::string level = numbered("encoder.down_blocks", i);
    for (std::int64_t j = 0; j < net.layers; ++j) {
      const std::int64_t own = net.channels[static_cast<std::size_t>(i)];
      hunyuan_resnet(list, numbered(level + ".resnets", j), width, own);
      width = own;
    }
    if (!net.halves_sides(i) && !net.halves_frames(i)) continue;
    if (net.halves_sides(i)) list.halve_sides();
    if (net.halves_frames(i)) list.halve_frames();
    list.conv(level + ".downsamplers.0.conv.conv", width, width, kCube);
  }
  hunyuan_middle(list, "encoder", net);
  list.norm("encoder.conv_norm_out", width);
  list.conv("encoder.conv_out.conv", width, 2 * net.latents, kCube);
  list.conv("quant_conv", 2 * net.latents, 2 * net.latents, kPoint3d);
}

void hunyuan_decoder(Listing& list, const Hunyuan& net) {
  std::int64_t width = net.channels.back();
  list.conv("post_quant_conv", net.latents, net.latents, kPoint3d);
  list.conv("decoder.conv_in.conv", net.latents, width, kCube);
  hunyuan_middle(list, "decoder", net);
  for (std::int64_t i = 0; i < std::ssize(net.channels); ++i) {
    const std::string level = numbered("decoder.up_blocks", i);
    const std::int64_t own = net.channels[net.channels.size() - 1 - static_cast<std::size_t>(i)];
    for (std::int64_t j = 0; j <= net.layers; ++j) {
      hunyuan_resnet(list, numbered(level + ".resnets", j), width, own);
      width = own;
    }
    if (net.halves_sides(i) || net.halves_frames(i)) {
      list.conv(level + ".upsamplers.0.conv.conv", width, width, kCube);
    }
  }
  list.norm("decoder.conv_norm_out", width);
  list.conv("decoder.conv_out.conv", width, net.outputs, kCube);
}

Graph start(const ConfigReader& config, const SampleShape& sample, std::int64_t width) {
  Graph graph;
  graph.name = config.name();
  graph.batch = sample.batch;
  graph.hidden = width;
  return graph;
}

std::int64_t halvings(std::int64_t ratio) {
  return std::bit_width(static_cast<std::uint64_t>(ratio)) - 1;
}

}  // namespace

// Four frames at a time go through the encoder behind the first (AutoencoderKLWan._encode).
Graph build_autoencoder_wan(ConfigReader& config, const SampleShape& sample) {
  constexpr std::int64_t kFramesAtOnce = 4;
  Wan net;
  net.width = config.whole({"base_dim"}, 96, kChannelLimits);
  net.decoder_width = config.whole({"decoder_base_dim"}, net.width, kChannelLimits);
  net.latents = config.whole({"z_dim"}, 16, kChannelLimits);
  net.inputs = config.whole({"in_channels"}, 3, kChannelLimits);
  net.outputs = config.whole({"out_channels"}, 3, kChannelLimits);
  net.layers = config.whole({"num_res_blocks"}, 2, kCountLimits);
  net.multiples = config.whole_list({"dim_mult"}, {1, 2, 4, 4}, kCountLimits);
  net.halves_frames = flags_of(config, "temperal_downsample", net.multiples.size() - 1);
  net.residual = config.flag({"is_residual"}, false);
  const std::int64_t patch = config.whole({"patch_size"}, 1, kSideLimits);
  if (config.has("attn_scales") && !config.is_empty_list("attn_scales")) {
    config.reject("attn_scales", "scales", "no scale",
                  "Wan's own autoencoders attend in the middle");
  }
  Graph graph = start(config, sample, net.width * net.multiples.back());
  const std::int64_t passes = sample.frames > 1 ? 1 + (sample.frames - 1) / kFramesAtOnce : 1;
  Listing list(graph, "embed");
  list.reads(pixels_read(sample.batch, std::min(sample.frames, kFramesAtOnce),
                         sample.height / patch, sample.width / patch, true));
  const bool runs = !list.positions().empty();
  wan_encoder(list, net);
  list.reads_nothing();
  wan_decoder(list, net);
  list.end_in_passes(runs ? passes : 1);
  return graph;
}

Graph build_autoencoder_hunyuan(ConfigReader& config, const SampleShape& sample) {
  Hunyuan net;
  net.channels = config.whole_list({"block_out_channels"}, {128, 256, 512, 512}, kChannelLimits);
  net.layers = config.whole({"layers_per_block"}, 2, kCountLimits);
  net.latents = config.whole({"latent_channels"}, 16, kChannelLimits);
  net.inputs = config.whole({"in_channels"}, 3, kChannelLimits);
  net.outputs = config.whole({"out_channels"}, 3, kChannelLimits);
  net.spatial = halvings(config.whole({"spatial_compression_ratio"}, 8, kSideLimits));
  net.temporal = halvings(config.whole({"temporal_compression_ratio"}, 4, kSideLimits));
  net.attends = config.flag({"mid_block_add_attention"}, true);
  Graph graph = start(config, sample, net.channels.back());
  Listing list(graph, "embed");
  list.reads(pixels_read(sample.batch, sample.frames, sample.height, sample.width, true));
  hunyuan_encoder(list, net);
  list.reads_nothing();
  hunyuan_decoder(list, net);
  list.end();
  return graph;
}

}  // namespace steelyard::model
