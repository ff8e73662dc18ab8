// What transformers' vision transformers with layer scale and stochastic depth share (DINOv2,
// BEiT): patches, learned positions, heads of queries, keys and values.
#pragma once

#include <string>
#include <vector>

#include "model/image_parts.h"

namespace steelyard::model {

struct PatchLayers {
  Picture picture;
  std::int64_t patch = 16, side = 224, hidden = 768, layers = 12, heads = 12, inner = 3072;
  std::int64_t classes = 2;
  ActivationKind activation = ActivationKind::gelu;
  bool qkv_bias = true;
  double hidden_dropout = 0.0, attention_dropout = 0.0, drop_path = 0.0;

  [[nodiscard]] std::int64_t rows() const { return picture.height / patch; }
  [[nodiscard]] std::int64_t columns() const { return picture.width / patch; }
  [[nodiscard]] std::int64_t patches() const { return rows() * columns(); }
  // Of the configuration's own size, for which the positions are learned.
  [[nodiscard]] std::int64_t own_rows() const { return side / patch; }
};

[[nodiscard]] PatchLayers read_patch_layers(ConfigReader& config, const SampleShape& sample,
                                            std::int64_t own_patch);
[[nodiscard]] Graph start_patch_graph(const ConfigReader& config, const SampleShape& sample,
                                      const PatchLayers& net);

// [B,C,h,w] -> [B,P,H].
[[nodiscard]] TensorRef add_patches(BlockBuilder& block, const PatchLayers& net,
                                    const std::string& projection);
// x [B,1+P,H] + positions of the name given, interpolated where the picture has another size.
[[nodiscard]] TensorRef add_positions(BlockBuilder& block, const PatchLayers& net,
                                      const std::string& name, TensorRef x);
// Queries, keys and values of NAME.query, .key, .value as heads [B,n,S,d].
struct QueryKeyValue {
  TensorRef q, k, v;
};
[[nodiscard]] QueryKeyValue add_projections(BlockBuilder& block, const std::string& name,
                                            TensorRef x, std::int64_t heads,
                                            const LinearOptions& of_query,
                                            const LinearOptions& of_key);
// Stochastic depth grows from 0 in the first layer: 1 for the layers that have any.
[[nodiscard]] std::vector<int> drop_path_kinds(std::int64_t layers, double probability);

}  // namespace steelyard::model
