// Recommendation networks whose features meet in layers and not in pairs. All start from the
// tables' vectors and the dense features side by side:
//   dcn        cross layers (Deep & Cross, Wang et al., arXiv 1708.05123: a vector per layer;
//   version
//              2, arXiv 2008.13535: a matrix, or two of low rank) as torchrec builds them
//              (modules/crossnet.py; models/dlrm.py, DLRM_DCN) and deepctr_torch
//              (layers/interaction.py, CrossNet), before an MLP or beside one
//   wide_deep  an MLP (Cheng et al., arXiv 1606.07792), and a weight for every row, summed
#include <string>
#include <vector>

#include "model/recommender_parts.h"

namespace steelyard::model {

namespace {

constexpr Limits kCrossLimits{0, 1000};

struct Network {
  Tables tables;
  std::vector<std::int64_t> bottom, deep;
  std::int64_t layers = 0;
  std::string cross, structure;
  std::int64_t rank = 0;
  bool wide = false;

  // Of what the tables and the dense features are side by side.
  [[nodiscard]] std::int64_t joined() const {
    const std::int64_t of_tables = checked_multiply(std::ssize(tables.rows), tables.width);
    return checked_add(of_tables, bottom.empty() ? tables.dense : bottom.back());
  }
};

Network network_of(ConfigReader& config, bool wide) {
  Network net;
  net.tables = tables_of(config);
  net.bottom = mlp_of(config, "bottom_mlp");
  net.deep = mlp_of(config, "deep_mlp");
  net.wide = config.flag({"wide"}, wide);
  if (!net.bottom.empty() && net.tables.dense == 0) {
    config.reject("bottom_mlp", "widths", "none without dense_features, which that MLP reads");
    net.bottom.clear();
  }
  if (wide) return net;
  net.layers = config.whole({"cross_layers"}, 2, kCrossLimits);
  net.cross = config.choice({"cross"}, "matrix", {"vector", "matrix", "low_rank"});
  net.structure = config.choice({"structure"}, "stacked", {"stacked", "parallel"});
  if (net.cross == "low_rank") net.rank = config.whole({"cross_rank"}, 512, kHiddenLimits);
  return net;
}

// x0 * (W x + b) + x; with a vector x0 * (w x) + b + x; with low rank W is W V.
TensorRef cross(BlockBuilder& block, const std::string& name, TensorRef first, TensorRef x,
                const Network& net) {
  TensorRef factor = x;
  if (net.cross == "vector") {
    factor = block.linear(name + ".kernel", x, 1, {.bias = false});
    const TensorRef product = block.multiply(name + ".product", first, factor);
    return block.add(name + ".add", block.add_weight(name + ".bias", product, {net.joined()}), x);
  }
  if (net.rank > 0) factor = block.linear(name + ".v", x, net.rank, {.bias = false});
  factor = block.linear(name + ".w", factor, net.joined(), {.bias = true});
  return block.add(name + ".add", block.multiply(name + ".product", first, factor), x);
}

// One weight per row of every table, summed over a sample's ids, and a linear of what is dense:
// rows of all tables are one table here, of which the same elements are read.
TensorRef wide_part(BlockBuilder& block, const Network& net, TensorRef logit) {
  std::int64_t rows = 0, ids = 0;
  for (std::size_t i = 0; i < net.tables.rows.size(); ++i) {
    rows = checked_add(rows, net.tables.rows[i]);
    ids = checked_add(ids, net.tables.pooling[i]);
  }
  logit = block.add(
      "wide.add", logit,
      block.embedding_tables("wide", kRowIds, {rows}, 1, {ids}, net.tables.sparse).front());
  if (net.tables.dense == 0) return logit;
  return block.add("wide.dense.add", logit,
                   block.linear("wide.dense", kRowDense, 1, {.bias = false}));
}

Graph build(ConfigReader& config, const SampleShape& sample, bool wide) {
  const Network net = network_of(config, wide);
  Graph graph = start_recommender(config, sample, net.tables);
  BlockBuilder block(graph, "embed");
  std::vector<TensorRef> features;
  if (net.tables.dense > 0) {
    features.push_back(net.bottom.empty() ? kRowDense
                                          : mlp(block, "bottom", kRowDense, net.bottom, false));
  }
  const std::vector<TensorRef> tables = block.embedding_tables(
      "tables", kRowIds, net.tables.rows, net.tables.width, net.tables.pooling, net.tables.sparse);
  features.insert(features.end(), tables.begin(), tables.end());
  const TensorRef first = block.join_features("join", features);
  TensorRef crossed = first;
  for (std::int64_t i = 0; i < net.layers; ++i) {
    crossed = cross(block, "cross." + std::to_string(i), first, crossed, net);
  }
  const bool beside = net.structure == "parallel" && !net.deep.empty() && net.layers > 0;
  TensorRef x = mlp(block, "deep", beside ? first : crossed, net.deep, false);
  if (beside) x = block.join_features("meet", {crossed, x});
  x = block.linear("logit", x, 1, {.bias = true});
  if (net.wide) x = wide_part(block, net, x);
  const TensorRef loss = block.loss(OperatorKind::binary_loss, {x, kRowLabels}, "loss");
  graph.segments.push_back({1, {block.finish(loss)}});
  return graph;
}

}  // namespace

Graph build_dcn(ConfigReader& config, const SampleShape& sample) {
  return build(config, sample, false);
}

Graph build_wide_deep(ConfigReader& config, const SampleShape& sample) {
  return build(config, sample, true);
}

}  // namespace steelyard::model
