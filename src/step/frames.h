// How long Python's variables hold the tensors of a block that nothing else holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/graph.h"

namespace steelyard::step {

// modules: a module's arguments and its variables live until its forward() returns, as in
// transformers. function: the block is one function (the test vectors' code). none: a compiler
// frees a buffer behind its last use.
enum class Frames : std::uint8_t { modules, function, none };

// By tensor of the block: the operator after which it is let go. Input and output live through; but
// `hidden_states = self.norm(hidden_states)` lets go of a head's input, and the norm's result lives
// as long as the model's forward(), which computes the loss itself or ends with the logits.
[[nodiscard]] std::vector<std::size_t> last_uses(const model::Block& block, Frames frames,
                                                 bool loss_in_model = true);

}  // namespace steelyard::step
