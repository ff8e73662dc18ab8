// What the recommendation networks have in common: tables for what is categorical, numbers for what
// is dense, MLPs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/family.h"
#include "model/image_parts.h"

namespace steelyard::model {

struct Tables {
  std::vector<std::int64_t> rows;     // of each table
  std::vector<std::int64_t> pooling;  // ids per sample that each table sums over
  std::int64_t width = 128;
  std::int64_t dense = 0;  // features
  bool sparse = true;      // gradients hold only the rows that were read
};

// The batch: ids of all features, labels, and what is dense.
constexpr TensorRef kRowIds{true, 0};
constexpr TensorRef kRowLabels{true, 1};
constexpr TensorRef kRowDense{true, 2};

// num_embeddings_per_feature, pooling, embedding_dim, dense_features, sparse_gradients.
[[nodiscard]] Tables tables_of(ConfigReader& config);
// These descriptions are files of people's own, with no class whose defaults complete them.
// Errors: a key that nearly bears the name of one that is read.
[[nodiscard]] Result<void> check_recommender_keys(const facts::Value& config,
                                                  const std::string& name);
// Widths of an MLP's layers; none where the key is not there.
[[nodiscard]] std::vector<std::int64_t> mlp_of(ConfigReader& config, std::string_view key);
[[nodiscard]] Graph start_recommender(const ConfigReader& config, const SampleShape& sample,
                                      const Tables& tables);
// Linear and ReLU, in turn; logits have no ReLU behind their last layer.
[[nodiscard]] TensorRef mlp(BlockBuilder& block, const std::string& name, TensorRef x,
                            const std::vector<std::int64_t>& widths, bool ends_in_logits);

}  // namespace steelyard::model
