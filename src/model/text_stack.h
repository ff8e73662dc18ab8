// The decoder of a model that reads more than text: what stands between its embeddings and its
// loss, under names that say where in the larger model it lies.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/family.h"

namespace steelyard::model {

struct TextNames {
  std::string root = "model";    // "language_model.model"
  std::string head = "lm_head";  // "language_model.lm_head"
};

struct TextStack {
  Sizes sizes;
  TextNames names;
  std::optional<double> embedding_scale = {};  // of text and pictures alike: PaliGemma
  bool scales_text_alone = false;              // before the pictures come in: Gemma 3
  std::int64_t rotary_dims = 0;
  bool own_positions = false;  // rotary tables of each sample
  bool sections = false;       // rotary tables of three positions of each token (Qwen2-VL)
  bool local_tables = false;   // further ones for layers with a window (Gemma 3)
  HeadOptions head;
  std::vector<int> kinds;
  std::function<Block(const Graph&, int kind)> layer;
};

// Of the model's `text_config`, by the model_type that it names, `fallback` where it names none.
[[nodiscard]] TextStack read_text_stack(ConfigReader& config, const TextNames& names,
                                        const std::string& fallback);
// `generation`: 1 to 3.
[[nodiscard]] TextStack read_gemma_stack(ConfigReader& text, const TextNames& names,
                                         int generation);

// Where the local tables lie among the shared tensors of a graph of pictures and text.
constexpr TensorRef kPictureLocalCos{true, 4};
constexpr TensorRef kPictureLocalSin{true, 5};

}  // namespace steelyard::model
