// Vision transformers: ViT and DeiT of transformers (modeling_vit.py, modeling_deit.py), and
// timm.models.vision_transformer. Pre-norm layers over patches and a class token; timm projects
// queries, keys and values at once.
#include "model/family.h"
#include "model/image_parts.h"

namespace steelyard::model {

namespace {

struct VisionTransformer {
  Picture picture;
  std::int64_t patch = 16, hidden = 768, layers = 12, heads = 12, inner = 3072, classes = 2;
  ActivationKind activation = ActivationKind::gelu;
  bool qkv_bias = true;
  bool batch_second = false;  // torch.nn.MultiheadAttention: tokens before samples, inside it
  double hidden_dropout = 0.0, attention_dropout = 0.0;
  [[nodiscard]] std::int64_t patches() const {
    return picture.height / patch * (picture.width / patch);
  }
};

struct EmbedNames {
  std::string projection, position;
  std::vector<std::string> tokens;
};

TensorRef embed_patches(Graph& graph, BlockBuilder& block, const VisionTransformer& vit,
                        const EmbedNames& names) {
  TensorRef x = block.conv(names.projection, kPixels, vit.hidden,
                           {.kernel = vit.patch, .stride = vit.patch, .bias = true});
  x = block.view("patches", x, {graph.batch, vit.patches(), vit.hidden}, true);
  x = block.class_tokens("class_token", x, names.tokens);
  const std::int64_t length = block.shape(x).at(1);
  return block.add_weight(names.position, x, {1, length, vit.hidden});
}

TensorRef vit_attention(BlockBuilder& block, TensorRef q, TensorRef k, TensorRef v,
                        const VisionTransformer& vit, const std::string& name) {
  const auto in_heads = [&](const char* part, TensorRef x) {
    return block.heads(name + "." + part + "_heads", x, vit.heads);
  };
  const TensorRef queries = in_heads("q", q);
  const TensorRef keys = in_heads("k", k);
  const TensorRef values = in_heads("v", v);
  return block.attention(name, queries, keys, values,
                         {.heads = vit.heads,
                          .kv_heads = vit.heads,
                          .head_dim = vit.hidden / vit.heads,
                          .causal = false,
                          .tokens_first = vit.batch_second,
                          .dropout = vit.attention_dropout});
}

// transformers: ViTLayer.
Block hugging_face_layer(const Graph& graph, const VisionTransformer& vit, const std::string& root,
                         std::int64_t length) {
  BlockBuilder block(graph, root + ".encoder.layer");
  const LinearOptions biased{.bias = true};
  const LinearOptions projection{.bias = vit.qkv_bias};
  const TensorRef x = block.input({graph.batch, length, vit.hidden});
  TensorRef h = block.layer_norm("layernorm_before", x);
  const TensorRef k = block.linear("attention.attention.key", h, vit.hidden, projection);
  const TensorRef v = block.linear("attention.attention.value", h, vit.hidden, projection);
  const TensorRef q = block.linear("attention.attention.query", h, vit.hidden, projection);
  h = vit_attention(block, q, k, v, vit, "attention.attention");
  h = block.linear("attention.output.dense", h, vit.hidden, biased);
  h = block.dropout("attention.output.dropout", h, vit.hidden_dropout);
  const TensorRef middle = block.add("residual_attention", h, x);
  h = block.layer_norm("layernorm_after", middle);
  h = block.linear("intermediate.dense", h, vit.inner, biased);
  h = block.activation("intermediate.act", h, vit.activation);
  h = block.linear("output.dense", h, vit.hidden, biased);
  h = block.dropout("output.dropout", h, vit.hidden_dropout);
  return block.finish(block.add("residual_mlp", h, middle));
}

TensorRef turned(BlockBuilder& block, const std::string& name, TensorRef x) {
  return block.contiguous(name + ".contiguous", block.view(name, x, block.shape(x), true));
}

// timm: Block with Attention and Mlp. torchvision: EncoderBlock, whose attention turns its input,
// unpacks what it projected (_in_projection_packed) and turns its result.
Block timm_layer(const Graph& graph, const VisionTransformer& vit, std::int64_t length) {
  BlockBuilder block(graph, "blocks");
  const LinearOptions biased{.bias = true};
  const TensorRef x = block.input({graph.batch, length, vit.hidden});
  TensorRef h = block.layer_norm("norm1", x);
  if (vit.batch_second) h = turned(block, "attn.tokens_first", h);
  h = block.linear("attn.qkv", h, 3 * vit.hidden, {.bias = vit.qkv_bias});
  if (vit.batch_second) h = turned(block, "attn.unpacked", h);
  const auto qkv =
      block.split("attn.split", h, {{"q", vit.hidden}, {"k", vit.hidden}, {"v", vit.hidden}});
  h = vit_attention(block, qkv[0], qkv[1], qkv[2], vit, "attn");
  h = block.linear("attn.proj", h, vit.hidden, biased);
  h = block.dropout("attn.proj_drop", h, vit.hidden_dropout);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.layer_norm("norm2", middle);
  h = block.linear("mlp.fc1", h, vit.inner, biased);
  h = block.activation("mlp.act", h, vit.activation);
  h = block.dropout("mlp.drop1", h, vit.hidden_dropout);
  h = block.linear("mlp.fc2", h, vit.hidden, biased);
  h = block.dropout("mlp.drop2", h, vit.hidden_dropout);
  return block.finish(block.add("residual_mlp", middle, h));
}

void check_patches(ConfigReader& config, const VisionTransformer& vit) {
  if (vit.picture.height % vit.patch == 0 && vit.picture.width % vit.patch == 0) return;
  config.reject("patch_size", std::to_string(vit.patch),
                "a divisor of the picture's " + std::to_string(vit.picture.height) + " x " +
                    std::to_string(vit.picture.width) + " pixels",
                "set train.image_size to a multiple of it");
}

void finish_vit(Graph& graph, const VisionTransformer& vit, std::int64_t length,
                const std::string& norm, const std::string& head) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, length, vit.hidden});
  x = block.layer_norm(norm, x);
  finish_classifier(graph, block, block.first_token("first_token", x), head, vit.classes);
}

Graph start_vit(const ConfigReader& config, const SampleShape& sample,
                const VisionTransformer& vit) {
  Graph graph = start_picture_graph(config, sample, vit.picture);
  graph.hidden = vit.hidden;
  graph.layers = vit.layers;
  return graph;
}

// `tokens`: those before the patches.
Graph build_hugging_face(ConfigReader& config, const SampleShape& sample, const std::string& root,
                         const std::vector<std::string>& tokens) {
  VisionTransformer vit;
  const std::int64_t side = config.whole({"image_size"}, 224, kSideLimits);
  vit.picture = picture_of(sample, side, side, config.whole({"num_channels"}, 3, kChannelLimits));
  vit.patch = config.whole({"patch_size"}, 16, kSideLimits);
  vit.hidden = config.whole({"hidden_size"}, 768, kHiddenLimits);
  vit.layers = config.whole({"num_hidden_layers"}, 12, kLayerLimits);
  vit.heads = config.whole({"num_attention_heads"}, 12, kHeadLimits);
  vit.inner = config.whole({"intermediate_size"}, 3072, kWideLimits);
  vit.classes = labels_of(config);
  vit.activation = config.activation({"hidden_act"}, "gelu");
  vit.qkv_bias = config.flag({"qkv_bias"}, true);
  vit.hidden_dropout = config.probability({"hidden_dropout_prob"}, 0.0);
  vit.attention_dropout = config.probability({"attention_probs_dropout_prob"}, 0.0);
  (void)divided_heads(config, vit.hidden, vit.heads, "hidden_size", "num_attention_heads");
  check_patches(config, vit);
  Graph graph = start_vit(config, sample, vit);
  EmbedNames names{root + ".embeddings.patch_embeddings.projection",
                   root + ".embeddings.position_embeddings",
                   {}};
  for (const std::string& token : tokens) names.tokens.push_back(root + ".embeddings." + token);
  BlockBuilder embed(graph, "embed");
  TensorRef x = embed_patches(graph, embed, vit, names);
  const std::int64_t length = embed.shape(x).at(1);
  x = embed.dropout(root + ".embeddings.dropout", x, vit.hidden_dropout);
  graph.segments.push_back({1, {embed.finish(x)}});
  graph.segments.push_back({vit.layers, {hugging_face_layer(graph, vit, root, length)}});
  finish_vit(graph, vit, length, root + ".layernorm", "classifier");
  return graph;
}

}  // namespace

Graph build_vit(ConfigReader& config, const SampleShape& sample) {
  return build_hugging_face(config, sample, "vit", {"cls_token"});
}

Graph build_deit(ConfigReader& config, const SampleShape& sample) {
  return build_hugging_face(config, sample, "deit", {"cls_token", "distillation_token"});
}

Graph build_timm_vision_transformer(ConfigReader& config, const SampleShape& sample) {
  VisionTransformer vit;
  const std::int64_t side = config.whole({"img_size"}, 224, kSideLimits);
  vit.picture = picture_of(sample, side, side, config.whole({"in_chans"}, 3, kChannelLimits));
  vit.patch = config.whole({"patch_size"}, 16, kSideLimits);
  vit.hidden = config.whole({"embed_dim"}, 768, kHiddenLimits);
  vit.layers = config.whole({"depth"}, 12, kLayerLimits);
  vit.heads = config.whole({"num_heads"}, 12, kHeadLimits);
  const double ratio = config.real({"mlp_ratio"}, 4.0, 0.01, 1024.0);
  vit.inner = static_cast<std::int64_t>(static_cast<double>(vit.hidden) * ratio);
  vit.classes = config.whole({"num_classes"}, 1000, kLabelLimits);
  vit.qkv_bias = config.flag({"qkv_bias"}, true);
  vit.batch_second = config.flag({"batch_second"}, false);
  (void)divided_heads(config, vit.hidden, vit.heads, "embed_dim", "num_heads");
  check_patches(config, vit);
  Graph graph = start_vit(config, sample, vit);
  BlockBuilder embed(graph, "embed");
  const TensorRef x =
      embed_patches(graph, embed, vit, {"patch_embed.proj", "pos_embed", {"cls_token"}});
  const std::int64_t length = embed.shape(x).at(1);
  graph.segments.push_back({1, {embed.finish(x)}});
  graph.segments.push_back({vit.layers, {timm_layer(graph, vit, length)}});
  finish_vit(graph, vit, length, "norm", "head");
  return graph;
}

}  // namespace steelyard::model
