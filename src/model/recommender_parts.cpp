#include "model/recommender_parts.h"

#include <algorithm>

#include "base/suggest.h"

namespace steelyard::model {

namespace {

constexpr Limits kRowLimits{1, 1'000'000'000'000};
constexpr Limits kPoolingLimits{1, 1'000'000};
constexpr Limits kDenseLimits{0, 1'000'000};

}  // namespace

Result<void> check_recommender_keys(const facts::Value& config, const std::string& name) {
  static const std::vector<std::string> kKeys = {"bottom_mlp",
                                                 "cross",
                                                 "cross_layers",
                                                 "cross_rank",
                                                 "deep_mlp",
                                                 "dense_features",
                                                 "embedding_dim",
                                                 "interaction",
                                                 "num_embeddings_per_feature",
                                                 "pooling",
                                                 "sparse_gradients",
                                                 "structure",
                                                 "top_mlp",
                                                 "wide"};
  const facts::Object* members = config.as_object();
  if (members == nullptr || config.find("num_embeddings_per_feature") == nullptr) return {};
  for (const auto& [key, value] : *members) {
    if (std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end()) continue;
    const auto nearest = nearest_name(key, kKeys);
    if (!nearest || config.find(*nearest) != nullptr) continue;  // a remark of the file's own
    std::string accepted;
    for (const std::string& known : kKeys) accepted += (accepted.empty() ? "" : ", ") + known;
    return fail(Error{.code = ErrorCode::unknown_name,
                      .subject = name + ": " + key,
                      .found = "an unknown key",
                      .accepted = accepted,
                      .hint = "did you mean \"" + *nearest + "\"?"});
  }
  return {};
}

std::vector<std::int64_t> mlp_of(ConfigReader& config, std::string_view key) {
  if (!config.has(key) || config.is_empty_list(key)) return {};
  return config.whole_list({key}, {}, kWideLimits);
}

Tables tables_of(ConfigReader& config) {
  Tables tables;
  tables.rows = config.whole_list({"num_embeddings_per_feature"}, {}, kRowLimits);
  if (tables.rows.empty()) {
    config.reject("num_embeddings_per_feature", "nothing", "the rows of each embedding table",
                  "\"num_embeddings_per_feature\": [45833188, 36746, 17245]");
    tables.rows = {1};  // the network is built all the same, and refused
  }
  tables.pooling = config.whole_list({"pooling"}, std::vector<std::int64_t>(tables.rows.size(), 1),
                                     kPoolingLimits, tables.rows.size());
  if (tables.pooling.size() != tables.rows.size()) {
    config.reject(
        "pooling", std::to_string(tables.pooling.size()) + " numbers",
        "one for all tables, or one for each of the " + std::to_string(tables.rows.size()));
    tables.pooling.assign(tables.rows.size(), 1);
  }
  tables.width = config.whole({"embedding_dim"}, 128, kHiddenLimits);
  tables.dense = config.whole({"dense_features"}, 0, kDenseLimits);
  tables.sparse = config.flag({"sparse_gradients"}, true);
  return tables;
}

Graph start_recommender(const ConfigReader& config, const SampleShape& sample,
                        const Tables& tables) {
  Graph graph;
  graph.name = config.name();
  graph.batch = sample.batch;
  graph.hidden = tables.width;
  std::int64_t ids = 0;
  for (const std::int64_t each : tables.pooling) ids = checked_add(ids, each);
  constexpr std::int64_t kBytesPerFeature = 4;
  graph.row_bytes =
      checked_multiply(kBytesPerFeature, checked_add(ids, tables.dense + 1));  // and the label
  graph.shared = {{"ids", {graph.batch, ids}, ElementKind::token_ids},
                  {"labels", {graph.batch}, ElementKind::pixels}};
  if (tables.dense > 0) {
    graph.shared.push_back({"dense", {graph.batch, tables.dense}, ElementKind::pixels});
  }
  graph.batch_tensors = graph.shared;
  return graph;
}

TensorRef mlp(BlockBuilder& block, const std::string& name, TensorRef x,
              const std::vector<std::int64_t>& widths, bool ends_in_logits) {
  for (std::size_t i = 0; i < widths.size(); ++i) {
    x = block.linear(name + "." + std::to_string(2 * i), x, widths[i], {.bias = true});
    if (ends_in_logits && i + 1 == widths.size()) break;
    x = block.activation(name + "." + std::to_string(2 * i + 1), x, ActivationKind::relu);
  }
  return x;
}

}  // namespace steelyard::model
