// Small helpers for the tests of this room.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "catalog/catalog.h"
#include "model/model.h"

namespace steelyard::model {

inline facts::ModelSource source_of(facts::Object config) {
  return {"test", facts::Value(std::move(config)), ""};
}

inline const catalog::Catalog& catalogue() {
  static const catalog::Catalog all =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  return all;
}

// Of a file below catalog/models: "timm/resnet50".
inline std::string model_id(const std::filesystem::path& file) {
  const auto models = std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog" / "models";
  return std::filesystem::relative(file, models).replace_extension().generic_string();
}

// The blocks of the segment between the embedding and the head.
inline const Block& layer_of(const Graph& graph) {
  return graph.segments.at(1).blocks.at(0);
}

inline const Operator* find_operator(const Block& block, std::string_view name) {
  for (const Operator& op : block.operators) {
    if (op.name == name) return &op;
  }
  return nullptr;
}

inline const Weight* find_weight(const Block& block, std::string_view name) {
  for (const Weight& weight : block.weights) {
    if (weight.name == name) return &weight;
  }
  return nullptr;
}

// "rms_norm linear linear ..." for a comparison that reads well when it fails.
inline std::string operator_names(const Block& block) {
  std::string names;
  for (const Operator& op : block.operators) {
    if (!names.empty()) names += ' ';
    names += op.name;
  }
  return names;
}

}  // namespace steelyard::model
