// Recommendation networks: DLRM (Naumov et al., arXiv 1906.00091) as facebookresearch/dlrm
// (dlrm_s_pytorch.py, DLRM_Net), torchrec (models/dlrm.py) and NVIDIA's DeepLearningExamples build
// it: embedding tables for what is categorical, an MLP for what is dense, products of all pairs of
// their vectors, an MLP on top.
#include <algorithm>
#include <string>
#include <vector>

#include "model/family.h"
#include "model/image_parts.h"

namespace steelyard::model {

namespace {

constexpr Limits kRowLimits{1, 1'000'000'000'000};
constexpr Limits kPoolingLimits{1, 1'000'000};
constexpr Limits kDenseLimits{0, 1'000'000};

struct Network {
  std::vector<std::int64_t> rows;     // of each table
  std::vector<std::int64_t> pooling;  // ids per sample that each table sums over
  std::int64_t width = 128;
  std::int64_t dense = 0;  // features
  std::vector<std::int64_t> bottom, top;
  std::string interaction;
  bool sparse = true;  // gradients hold only the rows that were read
};

constexpr TensorRef kIds{true, 0};
constexpr TensorRef kTargets{true, 1};
constexpr TensorRef kDense{true, 2};

std::vector<std::int64_t> mlp_of(ConfigReader& config, std::string_view key) {
  if (!config.has(key) || config.is_empty_list(key)) return {};
  return config.whole_list({key}, {}, kWideLimits);
}

Network network_of(ConfigReader& config) {
  Network net;
  net.rows = config.whole_list({"num_embeddings_per_feature"}, {}, kRowLimits);
  if (net.rows.empty()) {
    config.reject("num_embeddings_per_feature", "nothing", "the rows of each embedding table",
                  "\"num_embeddings_per_feature\": [45833188, 36746, 17245]");
    net.rows = {1};  // the network is built all the same, and refused
  }
  net.pooling = config.whole_list({"pooling"}, std::vector<std::int64_t>(net.rows.size(), 1),
                                  kPoolingLimits, net.rows.size());
  if (net.pooling.size() != net.rows.size()) {
    config.reject("pooling", std::to_string(net.pooling.size()) + " numbers",
                  "one for all tables, or one for each of the " + std::to_string(net.rows.size()));
    net.pooling.assign(net.rows.size(), 1);
  }
  net.width = config.whole({"embedding_dim"}, 128, kHiddenLimits);
  net.dense = config.whole({"dense_features"}, 0, kDenseLimits);
  net.bottom = mlp_of(config, "bottom_mlp");
  net.top = mlp_of(config, "top_mlp");
  net.interaction = config.choice({"interaction"}, "dot", {"dot", "cat", "none"});
  net.sparse = config.flag({"sparse_gradients"}, true);
  if (net.dense > 0 && net.bottom.empty()) {
    config.reject("bottom_mlp", "nothing", "the widths of the layers that read dense_features");
  }
  const bool meets = net.dense > 0 && net.interaction == "dot" && !net.bottom.empty();
  if (meets && net.bottom.back() != net.width) {
    config.reject(
        "bottom_mlp", "a last width of " + std::to_string(net.bottom.back()),
        "embedding_dim, " + std::to_string(net.width) + ": the products pair vectors of one width");
  }
  return net;
}

Graph start(const ConfigReader& config, const SampleShape& sample, const Network& net) {
  Graph graph;
  graph.name = config.name();
  graph.batch = sample.batch;
  graph.hidden = net.width;
  std::int64_t ids = 0;
  for (const std::int64_t each : net.pooling) ids = checked_add(ids, each);
  constexpr std::int64_t kBytesPerFeature = 4;
  graph.row_bytes = checked_multiply(kBytesPerFeature, ids + net.dense + 1);  // and the label
  graph.shared = {{"ids", {graph.batch, ids}, ElementKind::token_ids},
                  {"labels", {graph.batch}, ElementKind::pixels}};
  if (net.dense > 0) {
    graph.shared.push_back({"dense", {graph.batch, net.dense}, ElementKind::pixels});
  }
  graph.batch_tensors = graph.shared;
  return graph;
}

// Linear and ReLU, in turn; the last layer of the top MLP has no ReLU: the loss takes logits.
TensorRef mlp(BlockBuilder& block, const std::string& name, TensorRef x,
              const std::vector<std::int64_t>& widths, bool ends_in_logits) {
  for (std::size_t i = 0; i < widths.size(); ++i) {
    x = block.linear(name + "." + std::to_string(2 * i), x, widths[i], {.bias = true});
    if (ends_in_logits && i + 1 == widths.size()) break;
    x = block.activation(name + "." + std::to_string(2 * i + 1), x, ActivationKind::relu);
  }
  return x;
}

}  // namespace

Graph build_dlrm(ConfigReader& config, const SampleShape& sample) {
  const Network net = network_of(config);
  Graph graph = start(config, sample, net);
  BlockBuilder block(graph, "embed");
  std::vector<TensorRef> features;
  if (net.dense > 0) {
    features.push_back(mlp(block, "bot_l", kDense, net.bottom, false));
  }
  const TensorRef bottom = features.empty() ? TensorRef() : features.front();
  const std::vector<TensorRef> tables =
      block.embedding_tables("emb_l", kIds, net.rows, net.width, net.pooling, net.sparse);
  features.insert(features.end(), tables.begin(), tables.end());
  TensorRef x = block.join_features("join", features);
  if (net.interaction == "dot") {
    const auto vectors = static_cast<std::int64_t>(features.size());
    TensorRef pairs = block.pairwise_products("interact", x, vectors);
    x = bottom.index >= 0 ? block.join_features("interact.join", {bottom, pairs}) : pairs;
  }
  x = mlp(block, "top_l", x, net.top, true);
  const TensorRef loss = block.loss(OperatorKind::binary_loss, {x, kTargets}, "loss");
  graph.segments.push_back({1, {block.finish(loss)}});
  return graph;
}

}  // namespace steelyard::model
