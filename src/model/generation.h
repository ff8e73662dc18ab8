// A language model that writes: its cache of keys and values, and one token after another.
#pragma once

#include <cstdint>
#include <vector>

#include "model/graph.h"

namespace steelyard::model {

// Keys and values that one layer of a block keeps of its past.
struct LayerCache {
  std::int64_t keys = 0, values = 0;  // elements of one token and sample
  std::int64_t most = 0;              // tokens at most (a sliding window); 0: all

  // Elements of `tokens` tokens of one sample, keys or values.
  [[nodiscard]] std::int64_t tokens_of(std::int64_t tokens) const {
    return most > 0 && most < tokens ? most : tokens;
  }
};

// Of the block's attentions, in their order. What a scan keeps is small and left out.
[[nodiscard]] std::vector<LayerCache> caches_of(const Block& block);

// A graph of one token per sample (built with a sequence of 1) whose attentions read a past of
// `tokens` tokens, and whose logits are widened to fp32 and made probabilities, to sample from
// (transformers/generation/utils.py, _sample).
[[nodiscard]] Graph with_past(Graph graph, std::int64_t tokens);

}  // namespace steelyard::model
