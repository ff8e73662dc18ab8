// DINOv2, with and without register tokens (transformers 4.57: modeling_dinov2.py,
// modeling_dinov2_with_registers.py): pre-norm layers with a learned scale behind each half. The
// class of pictures reads the class token beside the mean of all patches.
#include <string>

#include "model/patch_layers.h"
#include "model/vision_family.h"

namespace steelyard::model {

namespace {

struct Dinov2 {
  PatchLayers net;
  std::string root;
  std::int64_t registers = 0;
  bool gated = false;      // SwiGLU
  bool mask_token = true;  // of pretraining; nothing reads it
  std::int64_t inner = 0;
  [[nodiscard]] std::int64_t tokens() const { return 1 + registers + net.patches(); }
};

Dinov2 read(ConfigReader& config, const SampleShape& sample, const std::string& root) {
  Dinov2 model;
  model.root = root;
  PatchLayers& net = model.net = read_patch_layers(config, sample, root == "dinov2" ? 14 : 16);
  net.qkv_bias = config.flag({"qkv_bias"}, true);
  // drop_path_rate of every layer alike, from the first on.
  net.drop_path = config.probability({"drop_path_rate"}, 0.0);
  model.gated = config.flag({"use_swiglu_ffn"}, false);
  const double ratio = config.real({"mlp_ratio"}, 4.0, 0.01, 1024.0);
  model.inner = static_cast<std::int64_t>(static_cast<double>(net.hidden) * ratio);
  if (model.gated) {  // (int(hidden * 2 / 3) + 7) // 8 * 8
    model.inner = (model.inner * 2 / 3 + 7) / 8 * 8;
  }
  return model;
}

Block embed(const Graph& graph, const Dinov2& model) {
  const std::string at = model.root + ".embeddings.";
  BlockBuilder block(graph, "embed");
  TensorRef x = add_patches(block, model.net, at + "patch_embeddings.projection");
  if (model.mask_token) {
    const std::size_t from = block.weight_count();
    (void)block.parameter(at + "mask_token", {1, model.net.hidden}, WeightRole::other);
    block.leave_unread(from);
  }
  x = block.class_tokens("class_token", x, {at + "cls_token"});
  x = add_positions(block, model.net, at + "position_embeddings", x);
  if (model.registers > 0) {
    const auto parts = block.split_tokens("registers.split", x,
                                          {{"class", 1}, {"patches", model.net.patches()}}, false);
    const Shape rows = {1, model.registers, model.net.hidden};
    TensorRef tokens = block.parameter(at + "register_tokens", rows, WeightRole::other);
    tokens = block.view("registers.expand", tokens, {graph.batch, rows[1], rows[2]});
    block.last().kind = OperatorKind::expand;
    x = block.concatenate("registers.cat", {parts[0], tokens, parts[1]}, 1);
  }
  return block.finish(block.dropout(at + "dropout", x, model.net.hidden_dropout));
}

TensorRef feed_forward(BlockBuilder& block, TensorRef h, const Dinov2& model) {
  const LinearOptions biased{.bias = true};
  if (model.gated) {
    h = block.linear("mlp.weights_in", h, 2 * model.inner, biased);
    h = block.fused_gated_activation("mlp.act", h, ActivationKind::silu);
    return block.linear("mlp.weights_out", h, model.net.hidden, biased);
  }
  h = block.linear("mlp.fc1", h, model.inner, biased);
  h = block.activation("mlp.activation", h, model.net.activation);
  return block.linear("mlp.fc2", h, model.net.hidden, biased);
}

Block layer_of(const Graph& graph, const Dinov2& model) {
  const PatchLayers& net = model.net;
  BlockBuilder block(graph, model.root + ".encoder.layer");
  const TensorRef x = block.input({graph.batch, model.tokens(), net.hidden});
  TensorRef h = block.layer_norm("norm1", x);
  const std::string module = "attention.attention";
  const LinearOptions projection{.bias = net.qkv_bias};
  const auto [q, k, v] = add_projections(block, module, h, net.heads, projection, projection);
  h = block.attention(module, q, k, v,
                      {.heads = net.heads,
                       .kv_heads = net.heads,
                       .head_dim = net.hidden / net.heads,
                       .causal = false,
                       .dropout = net.attention_dropout,
                       .softmax_in_fp32 = true});
  h = block.linear("attention.output.dense", h, net.hidden, {.bias = true});
  h = block.dropout("attention.output.dropout", h, net.hidden_dropout);
  h = block.multiply_weight("layer_scale1.lambda1", h, net.hidden);
  h = block.drop_path("drop_path", h, net.drop_path);
  const TensorRef middle = block.add("residual_attention", h, x);
  h = feed_forward(block, block.layer_norm("norm2", middle), model);
  h = block.multiply_weight("layer_scale2.lambda1", h, net.hidden);
  h = block.drop_path("drop_path2", h, net.drop_path);
  return block.finish(block.add("residual_mlp", h, middle));
}

Graph build(ConfigReader& config, const SampleShape& sample, const Dinov2& model) {
  Graph graph = start_patch_graph(config, sample, model.net);
  graph.segments.push_back({1, {embed(graph, model)}});
  graph.segments.push_back({model.net.layers, {layer_of(graph, model)}});
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, model.tokens(), model.net.hidden});
  x = block.layer_norm(model.root + ".layernorm", x);
  const TensorRef first = block.first_token("cls_token", x);
  const TensorRef patches = block.tokens_from("patch_tokens", x, 1 + model.registers);
  x = block.concatenate("linear_input", first, block.global_average_pool("mean", patches));
  finish_classifier(graph, block, x, "classifier", model.net.classes);
  return graph;
}

}  // namespace

Graph build_dinov2(ConfigReader& config, const SampleShape& sample) {
  Dinov2 model = read(config, sample, "dinov2");
  model.mask_token = config.flag({"use_mask_token"}, true);
  return build(config, sample, model);
}

Graph build_dinov2_with_registers(ConfigReader& config, const SampleShape& sample) {
  Dinov2 model = read(config, sample, "dinov2_with_registers");
  model.registers = config.whole({"num_register_tokens"}, 4, {0, kPositionLimits.most});
  return build(config, sample, model);
}

}  // namespace steelyard::model
