// DETR (transformers 4.49: modeling_detr.py): a residual network with fixed norms, its last feature
// map as tokens of an encoder, and a decoder whose queries each find one object. Positions are
// added to queries and keys in every layer. Its code has no fused attention. The cost of matching
// queries and objects, on the host and over a few numbers, is not in the graph.
#include <fmt/format.h>

#include <array>
#include <string>

#include "model/image_parts.h"
#include "model/resnet_parts.h"
#include "model/vision_family.h"

namespace steelyard::model {

namespace {

constexpr TensorRef kClassTargets{true, 1};  // [B*Q]

constexpr TensorRef kMapMask{true, 3};      // [B,S] of the feature map
constexpr TensorRef kPlaces{true, 4};       // [B,S,H], sines
constexpr TensorRef kEncoderMask{true, 5};  // [B,1,S,S]
constexpr TensorRef kCrossMask{true, 6};    // [B,1,Q,S]
constexpr TensorRef kFeatures{true, 7};     // [B,S,H], the encoder's
constexpr TensorRef kQueryPlaces{true, 8};  // [B,Q,H], learned

struct Detr {
  FrozenResNet backbone;
  std::int64_t hidden = 256, queries = 100, classes = 2, tokens = 0;
  std::int64_t encoder_layers = 6, encoder_heads = 8, encoder_inner = 2048;
  std::int64_t decoder_layers = 6, decoder_heads = 8, decoder_inner = 2048;
  ActivationKind activation = ActivationKind::relu;
  double dropout = 0.1, attention_dropout = 0.0, activation_dropout = 0.0;
};

struct KnownBackbone {
  std::string_view name;
  bool bottleneck;
  std::array<std::int64_t, 4> depths;
};

constexpr std::array kBackbones = {
    KnownBackbone{"resnet101", true, {3, 4, 23, 3}},
    KnownBackbone{"resnet152", true, {3, 8, 36, 3}}, KnownBackbone{"resnet18", false, {2, 2, 2, 2}},
    KnownBackbone{"resnet34", false, {3, 4, 6, 3}}, KnownBackbone{"resnet50", true, {3, 4, 6, 3}}};

FrozenResNet read_backbone(ConfigReader& config) {
  FrozenResNet backbone;
  backbone.prefix = "model.backbone.conv_encoder.model.";
  const std::string name = config.choice(
      {"backbone"}, "resnet50", {"resnet101", "resnet152", "resnet18", "resnet34", "resnet50"});
  for (const KnownBackbone& known : kBackbones) {
    if (known.name != name) continue;
    backbone.bottleneck = known.bottleneck;
    backbone.depths.assign(known.depths.begin(), known.depths.end());
  }
  if (!config.flag({"use_timm_backbone"}, true)) {
    config.reject("use_timm_backbone", "false", "true, with \"backbone\": \"resnet50\"");
  }
  if (config.flag({"dilation"}, false)) config.reject("dilation", "true", "false");
  return backbone;
}

Detr read(ConfigReader& config) {
  Detr net;
  net.backbone = read_backbone(config);
  net.hidden = config.whole({"d_model"}, 256, kHiddenLimits);
  net.queries = config.whole({"num_queries"}, 100, kPositionLimits);
  net.classes = labels_of(config);
  net.encoder_layers = config.whole({"encoder_layers"}, 6, kLayerLimits);
  net.encoder_heads = config.whole({"encoder_attention_heads"}, 8, kHeadLimits);
  net.encoder_inner = config.whole({"encoder_ffn_dim"}, 2048, kWideLimits);
  net.decoder_layers = config.whole({"decoder_layers"}, 6, kLayerLimits);
  net.decoder_heads = config.whole({"decoder_attention_heads"}, 8, kHeadLimits);
  net.decoder_inner = config.whole({"decoder_ffn_dim"}, 2048, kWideLimits);
  net.activation = config.activation({"activation_function"}, "relu");
  net.dropout = config.probability({"dropout"}, 0.1);
  net.attention_dropout = config.probability({"attention_dropout"}, 0.0);
  net.activation_dropout = config.probability({"activation_dropout"}, 0.0);
  for (const char* key : {"encoder_attention_heads", "decoder_attention_heads"}) {
    const bool encoder = std::string_view(key).starts_with("encoder");
    (void)divided_heads(config, net.hidden, encoder ? net.encoder_heads : net.decoder_heads,
                        "d_model", key);
  }
  if (config.flag({"auxiliary_loss"}, false)) {
    config.reject("auxiliary_loss", "true",
                  "false: a loss of each layer of the decoder is not built");
  }
  (void)config.choice({"position_embedding_type"}, "sine", {"sine"});
  return net;
}

struct AttentionPlan {
  std::string module;
  std::int64_t heads = 1;
  TensorRef query_places = {}, source = {}, source_places = {}, mask = {};
};

// DetrAttention: places are added before queries and keys are projected, not before values.
TensorRef attention(BlockBuilder& block, TensorRef x, const Detr& net, const AttentionPlan& plan) {
  const std::string at = plan.module + ".";
  const auto projected = [&](const char* part, TensorRef from) {
    const std::string name = at + part;
    return block.heads(name + "_heads", block.linear(name, from, net.hidden, {.bias = true}),
                       plan.heads);
  };
  const bool cross = plan.source.index >= 0;
  const TensorRef placed = block.add(at + "query_places", x, plan.query_places);
  const TensorRef keys =
      cross ? block.add(at + "key_places", plan.source, plan.source_places) : placed;
  const TensorRef q = projected("q_proj", placed);
  const TensorRef k = projected("k_proj", keys);
  const TensorRef v = projected("v_proj", cross ? plan.source : x);
  const AttentionShape shape{.heads = plan.heads,
                             .kv_heads = plan.heads,
                             .head_dim = net.hidden / plan.heads,
                             .causal = false,
                             .dropout = net.attention_dropout,
                             .padding_mask = plan.mask.index >= 0,
                             .casts_probabilities = false,
                             .scales_queries = true,
                             .always_eager = true};
  const TensorRef mixed = plan.mask.index >= 0
                              ? block.masked_attention(plan.module, q, k, v, plan.mask, shape)
                              : block.attention(plan.module, q, k, v, shape);
  return block.linear(at + "out_proj", mixed, net.hidden, {.bias = true});
}

// Dropout, the residual sum, the norm behind it.
TensorRef joined(BlockBuilder& block, TensorRef x, TensorRef h, const Detr& net,
                 const std::string& norm) {
  h = block.dropout(norm + ".dropout", h, net.dropout);
  return block.layer_norm(norm, block.add(norm + ".residual", x, h));
}

TensorRef feed_forward(BlockBuilder& block, TensorRef x, const Detr& net, std::int64_t inner) {
  TensorRef h = block.linear("fc1", x, inner, {.bias = true});
  h = block.activation("activation_fn", h, net.activation);
  h = block.dropout("activation_fn.dropout", h, net.activation_dropout);
  return joined(block, x, block.linear("fc2", h, net.hidden, {.bias = true}), net,
                "final_layer_norm");
}

Block encoder_layer(const Graph& graph, const Detr& net) {
  BlockBuilder block(graph, "model.encoder.layers");
  TensorRef x = block.input({graph.batch, net.tokens, net.hidden});
  const TensorRef h = attention(block, x, net,
                                {.module = "self_attn",
                                 .heads = net.encoder_heads,
                                 .query_places = kPlaces,
                                 .mask = kEncoderMask});
  x = joined(block, x, h, net, "self_attn_layer_norm");
  return block.finish(feed_forward(block, x, net, net.encoder_inner));
}

Block decoder_layer(const Graph& graph, const Detr& net) {
  BlockBuilder block(graph, "model.decoder.layers");
  TensorRef x = block.input({graph.batch, net.queries, net.hidden});
  TensorRef h =
      attention(block, x, net,
                {.module = "self_attn", .heads = net.decoder_heads, .query_places = kQueryPlaces});
  x = joined(block, x, h, net, "self_attn_layer_norm");
  h = attention(block, x, net,
                {.module = "encoder_attn",
                 .heads = net.decoder_heads,
                 .query_places = kQueryPlaces,
                 .source = kFeatures,
                 .source_places = kPlaces,
                 .mask = kCrossMask});
  x = joined(block, x, h, net, "encoder_attn_layer_norm");
  return block.finish(feed_forward(block, x, net, net.decoder_inner));
}

void add_shared(Graph& graph, const Detr& net) {
  const std::int64_t batch = graph.batch;
  const Shape places = {batch, net.tokens, net.hidden};
  graph.shared.insert(
      graph.shared.end(),
      {{"map_mask", {batch, net.tokens}, ElementKind::boolean},
       {"object_queries", places, ElementKind::real},
       {"encoder_attention_mask", {batch, 1, net.tokens, net.tokens}, ElementKind::real},
       {"cross_attention_mask", {batch, 1, net.queries, net.tokens}, ElementKind::real},
       {"encoder_hidden_states", places, ElementKind::real},
       {"query_position_embeddings", {batch, net.queries, net.hidden}, ElementKind::real}});
}

// The last feature map as tokens, its sines and masks.
void add_projection(Graph& graph, const Detr& net, const Shape& map) {
  BlockBuilder block(graph, "middle");
  TensorRef x = block.input(map);
  const TensorRef places =
      block.values("model.backbone.position_embedding", {graph.batch, net.tokens, net.hidden});
  block.share(places, kPlaces);
  block.padding_mask("model.encoder.attention_mask", kMapMask, kEncoderMask);
  x = block.conv("model.input_projection", x, net.hidden, {.kernel = 1, .bias = true});
  x = block.view("model.flattened_features", x, {graph.batch, net.tokens, net.hidden}, true);
  // Dropout of the encoder's input, which is a copy where there is none.
  x = net.dropout > 0.0 ? block.dropout("model.encoder.dropout", x, net.dropout)
                        : block.contiguous("model.encoder.input", x);
  graph.segments.push_back({1, {block.finish(x)}});
}

// The encoder's result for all layers of the decoder, and the decoder's first stream: zeros.
void add_queries(Graph& graph, const Detr& net) {
  BlockBuilder block(graph, "middle");
  const Shape queries = {graph.batch, net.queries, net.hidden};
  const TensorRef x = block.input({graph.batch, net.tokens, net.hidden});
  block.view("model.encoder.last_hidden_state", x, block.shape(x));
  block.publish(kFeatures);
  TensorRef places = block.parameter("model.query_position_embeddings.weight",
                                     {net.queries, net.hidden}, WeightRole::embedding);
  places = block.view("model.query_places.expand", places, queries);
  block.last().kind = OperatorKind::expand;
  block.contiguous("model.query_places", places);
  block.publish(kQueryPlaces);
  block.padding_mask("model.decoder.encoder_attention_mask", kMapMask, kCrossMask);
  graph.segments.push_back({1, {block.finish(block.values("model.queries", queries))}});
}

void add_detection(Graph& graph, const Detr& net) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, net.queries, net.hidden});
  x = block.layer_norm("model.decoder.layernorm", x);
  // One class more: no object.
  const TensorRef logits =
      block.linear("class_labels_classifier", x, net.classes + 1, {.bias = true});
  for (const int layer : {0, 1}) {
    const std::string name = fmt::format("bbox_predictor.layers.{}", layer);
    x = block.activation(name + ".relu", block.linear(name, x, net.hidden, {.bias = true}),
                         ActivationKind::relu);
  }
  x = block.linear("bbox_predictor.layers.2", x, 4, {.bias = true});
  const TensorRef boxes = block.activation("pred_boxes", x, ActivationKind::sigmoid);
  const TensorRef loss =
      block.loss(OperatorKind::outputs_loss, {logits, boxes, kClassTargets}, "loss");
  block.last().groups = 2;
  graph.segments.push_back({1, {block.finish(loss)}});
}

}  // namespace

Graph build_detr(ConfigReader& config, const SampleShape& sample) {
  Detr net = read(config);
  // DetrImageProcessor: the shorter side 800, the longer one at most 1333; a batch is padded to its
  // largest.
  const Picture picture =
      picture_of(sample, 800, 1333, config.whole({"num_channels"}, 3, kChannelLimits));
  Graph graph = start_picture_graph(config, sample, picture);
  graph.shared[1] = {"class_targets", {graph.batch * net.queries}, ElementKind::token_ids};
  graph.shared.push_back(
      {"pixel_mask", {graph.batch, picture.height, picture.width}, ElementKind::token_ids});
  graph.batch_tensors = {graph.shared[0], graph.shared[2]};
  const Shape map = add_frozen_resnet(graph, net.backbone);
  net.tokens = checked_multiply(map.at(2), map.at(3));
  graph.hidden = net.hidden;
  graph.layers += net.encoder_layers + net.decoder_layers;
  add_shared(graph, net);
  add_projection(graph, net, map);
  graph.segments.push_back({net.encoder_layers, {encoder_layer(graph, net)}});
  add_queries(graph, net);
  graph.segments.push_back({net.decoder_layers, {decoder_layer(graph, net)}});
  add_detection(graph, net);
  return graph;
}

}  // namespace steelyard::model
