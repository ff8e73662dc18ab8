// CLIP and SigLIP (transformers: modeling_clip.py, modeling_siglip.py): a stack that reads pictures
// and one that reads text, whose results are compared for every pair of a batch; or the first
// alone, as it is or with a classifier.
#include <fmt/format.h>

#include <algorithm>

#include "model/picture_text.h"
#include "model/vision_tower.h"

namespace steelyard::model {

namespace {

constexpr TensorRef kPictures{true, 1};         // of a model of both kinds
constexpr TensorRef kPictureFeatures{true, 2};  // [B,D]

bool ends_with_classifier(ConfigReader& config) {
  const std::vector<std::string> classes = config.text_list({"architectures"});
  return !classes.empty() && classes.front().ends_with("ForImageClassification");
}

// The vision stack alone. Without a classifier its class has no loss: that of its features' sum.
Graph build_tower(ConfigReader& config, const SampleShape& sample, VisionTower tower,
                  std::int64_t classes) {
  set_pictures(config, tower, sample, sample.batch);
  Graph graph = start_picture_graph(config, sample, {tower.height, tower.width, tower.channels});
  graph.hidden = tower.layer.hidden;
  graph.layers = tower.layers;
  add_vision_layers(graph, tower, kPixels, tower.layers);
  BlockBuilder block(graph, "head");
  TensorRef x = block.input(tower.stream());
  if (classes == 0) {
    if (!tower.class_token) x = add_post_norm(block, x, tower);
    if (tower.class_token || tower.pools) x = add_pooling(block, x, tower);
    graph.segments.push_back(
        {1, {block.finish(block.loss(OperatorKind::outputs_loss, {x}, "loss"))}});
    return graph;
  }
  if (tower.class_token) {
    add_unread_layers(block, x, tower, tower.layers);
    x = block.tokens_from("patches", x, 1);
  } else {
    x = add_post_norm(block, x, tower);
    const std::size_t from = block.weight_count();
    if (tower.pools) (void)add_pooling(block, x, tower);
    block.leave_unread(from);
  }
  finish_classifier(graph, block, block.global_average_pool("mean", x), "classifier", classes);
  return graph;
}

struct TextTower {
  PreNormLayer layer;
  std::int64_t vocabulary = 49408, layers = 12, positions = 77;
};

TextTower read_text_tower(ConfigReader& config, bool clip) {
  TextTower text;
  text.vocabulary = config.whole({"vocab_size"}, clip ? 49408 : 32000, kVocabularyLimits);
  text.layer.hidden = config.whole({"hidden_size"}, clip ? 512 : 768, kHiddenLimits);
  text.layer.inner = config.whole({"intermediate_size"}, clip ? 2048 : 3072, kWideLimits);
  text.layer.heads = config.whole({"num_attention_heads"}, clip ? 8 : 12, kHeadLimits);
  text.layer.activation =
      config.activation({"hidden_act"}, clip ? "quick_gelu" : "gelu_pytorch_tanh");
  text.layer.dropout = config.probability({"attention_dropout"}, 0.0);
  text.layer.causal = clip;
  text.layer.wide_softmax = !clip;
  text.layers = config.whole({"num_hidden_layers"}, 12, kLayerLimits);
  text.positions = config.whole({"max_position_embeddings"}, clip ? 77 : 64, kPositionLimits);
  (void)divided_heads(config, text.layer.hidden, text.layer.heads, "hidden_size",
                      "num_attention_heads");
  return text;
}

Graph start_both(ConfigReader& config, const SampleShape& sample, const VisionTower& tower,
                 const TextTower& text, std::int64_t features) {
  Sizes sizes;
  sizes.vocabulary = text.vocabulary;
  sizes.hidden = text.layer.hidden;
  sizes.layers = text.layers;
  sizes.max_sequence = text.positions;
  Graph graph = start_graph(config, sizes, sample);
  check_positions(config, graph, text.positions, "text_config.max_position_embeddings");
  graph.image_height = tower.height;
  graph.image_width = tower.width;
  graph.images = 1;
  const TensorInfo mask{"attention_mask", {graph.batch, graph.sequence}, ElementKind::token_ids};
  const TensorInfo pixels{"pixel_values", tower.pixels(), ElementKind::pixels};
  graph.batch_tensors = {graph.shared.front(), mask, pixels};
  graph.shared.push_back(pixels);
  graph.shared.push_back({"image_embeds", {graph.batch, features}, ElementKind::real});
  return graph;
}

// Behind the pictures: their features, which the loss reads, and the text's tokens.
void add_between(Graph& graph, const VisionTower& tower, const TextTower& text, bool clip) {
  BlockBuilder block(graph, "middle");
  TensorRef x = block.input(tower.stream());
  if (!clip) x = add_post_norm(block, x, tower);
  x = add_pooling(block, x, tower);
  if (clip) {
    const std::int64_t features = graph.shared.at(2).shape.back();
    x = block.linear("visual_projection", x, features);
  }
  (void)block.unit_length("image_embeds", x);
  block.publish(kPictureFeatures);
  const std::string embeddings = "text_model.embeddings";
  x = block.embedding(embeddings + ".token_embedding", kTokenIds, text.vocabulary,
                      text.layer.hidden);
  const TensorRef positions = block.position_embedding(
      embeddings + ".position_embedding", text.positions, text.layer.hidden, 1, graph.sequence);
  graph.segments.push_back(
      {1, {block.finish(block.add(embeddings + ".add_positions", x, positions))}});
}

void add_comparison(Graph& graph, const TextTower& text, bool clip) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, graph.sequence, text.layer.hidden});
  x = block.layer_norm("text_model.final_layer_norm", x);
  // CLIP reads the token that ends each text, SigLIP the last one.
  x = clip ? block.gather_tokens("text_model.pooled", x, {graph.batch, text.layer.hidden})
           : block.first_token("text_model.pooled", x);
  const std::int64_t features = graph.shared.at(2).shape.back();
  x = block.linear(clip ? "text_projection" : "text_model.head", x, features, {.bias = !clip});
  x = block.unit_length("text_embeds", x);
  const TensorRef loss =
      clip ? block.contrastive_loss(x, kPictureFeatures, "logit_scale", {})
           : block.contrastive_loss(x, kPictureFeatures, "logit_scale", {1}, "logit_bias");
  graph.segments.push_back({1, {block.finish(loss)}});
}

Graph build_both(ConfigReader& config, const SampleShape& sample, bool clip) {
  ConfigReader vision_config = config.table("vision_config");
  VisionTower tower = read_vision_tower(vision_config, "vision_model",
                                        clip ? "clip_vision_model" : "siglip_vision_model");
  set_pictures(vision_config, tower, sample, sample.batch);
  config.adopt(vision_config);
  if (ends_with_classifier(config)) return build_tower(config, sample, tower, labels_of(config));
  ConfigReader text_config = config.table("text_config");
  const TextTower text = read_text_tower(text_config, clip);
  const std::int64_t width =
      clip ? config.whole({"projection_dim"}, 512, kHiddenLimits)
           : text_config.whole({"projection_size"}, text.layer.hidden, kHiddenLimits);
  config.adopt(text_config);
  if (!clip && !tower.pools) config.reject("vision_config.vision_use_head", "false", "true");
  Graph graph = start_both(config, sample, tower, text, width);
  add_vision_layers(graph, tower, kPictures, tower.layers);
  add_between(graph, tower, text, clip);
  BlockBuilder layer(graph, "text_model.encoder.layers");
  const TensorRef in = layer.input({graph.batch, graph.sequence, text.layer.hidden});
  graph.segments.push_back(
      {text.layers, {layer.finish(add_pre_norm_layer(layer, in, text.layer))}});
  graph.layers += tower.layers;
  add_comparison(graph, text, clip);
  return graph;
}

// model_type "clip" is a model of both kinds, "clip_vision_model" one of pictures.
Graph build_either(ConfigReader& config, const SampleShape& sample, bool clip) {
  const std::string own = clip ? "clip" : "siglip";
  const std::string vision = own + "_vision_model";
  if (!config.is_text("model_type", vision)) return build_both(config, sample, clip);
  const VisionTower tower = read_vision_tower(config, "vision_model", vision);
  const std::int64_t classes = ends_with_classifier(config) ? labels_of(config) : 0;
  return build_tower(config, sample, tower, classes);
}

}  // namespace

Graph build_clip(ConfigReader& config, const SampleShape& sample) {
  return build_either(config, sample, true);
}

Graph build_siglip(ConfigReader& config, const SampleShape& sample) {
  return build_either(config, sample, false);
}

}  // namespace steelyard::model
