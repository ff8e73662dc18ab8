// Host memory that a model passes through: on the way in (loading) and on the way out
// (checkpoints).
#pragma once

#include "base/quantity.h"
#include "ram/node.h"

namespace steelyard::ram {

// Beyond what stays: held by the node's ranks while they load the model.
[[nodiscard]] Bytes load_transient(const Node& node, Notes& notes);

// Beyond the steady state: held by the node's ranks while a checkpoint is written.
[[nodiscard]] Bytes checkpoint_staging(const Node& node, Notes& notes);

// What a checkpoint of the whole job holds: parameters (only the adapters of LoRA) and optimizer.
[[nodiscard]] Bytes checkpoint_size(const Node& node);

// The model's files, which the page cache would serve to all ranks and to the next start.
[[nodiscard]] Bytes model_file(const Node& node);

}  // namespace steelyard::ram
