// Recommendation networks: DLRM (Naumov et al., arXiv 1906.00091) as facebookresearch/dlrm
// (dlrm_s_pytorch.py, DLRM_Net), torchrec (models/dlrm.py) and NVIDIA's DeepLearningExamples build
// it: embedding tables for what is categorical, an MLP for what is dense, products of all pairs of
// their vectors, an MLP on top.
#include <string>
#include <vector>

#include "model/recommender_parts.h"

namespace steelyard::model {

namespace {

struct Network {
  Tables tables;
  std::vector<std::int64_t> bottom, top;
  std::string interaction;
};

Network network_of(ConfigReader& config) {
  Network net;
  net.tables = tables_of(config);
  net.bottom = mlp_of(config, "bottom_mlp");
  net.top = mlp_of(config, "top_mlp");
  net.interaction = config.choice({"interaction"}, "dot", {"dot", "cat", "none"});
  if (net.tables.dense > 0 && net.bottom.empty()) {
    config.reject("bottom_mlp", "nothing", "the widths of the layers that read dense_features");
  }
  const bool meets = net.tables.dense > 0 && net.interaction == "dot" && !net.bottom.empty();
  if (meets && net.bottom.back() != net.tables.width) {
    config.reject("bottom_mlp", "a last width of " + std::to_string(net.bottom.back()),
                  "embedding_dim, " + std::to_string(net.tables.width) +
                      ": the products pair vectors of one width");
  }
  return net;
}

}  // namespace

Graph build_dlrm(ConfigReader& config, const SampleShape& sample) {
  const Network net = network_of(config);
  Graph graph = start_recommender(config, sample, net.tables);
  BlockBuilder block(graph, "embed");
  std::vector<TensorRef> features;
  if (net.tables.dense > 0) {
    features.push_back(mlp(block, "bot_l", kRowDense, net.bottom, false));
  }
  const TensorRef bottom = features.empty() ? TensorRef() : features.front();
  const std::vector<TensorRef> tables = block.embedding_tables(
      "emb_l", kRowIds, net.tables.rows, net.tables.width, net.tables.pooling, net.tables.sparse);
  features.insert(features.end(), tables.begin(), tables.end());
  TensorRef x = block.join_features("join", features);
  if (net.interaction == "dot") {
    const auto vectors = static_cast<std::int64_t>(features.size());
    TensorRef pairs = block.pairwise_products("interact", x, vectors);
    x = bottom.index >= 0 ? block.join_features("interact.join", {bottom, pairs}) : pairs;
  }
  x = mlp(block, "top_l", x, net.top, true);
  const TensorRef loss = block.loss(OperatorKind::binary_loss, {x, kRowLabels}, "loss");
  graph.segments.push_back({1, {block.finish(loss)}});
  return graph;
}

}  // namespace steelyard::model
