// A model of Hugging Face's library as Megatron-LM's own code builds it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/error.h"
#include "facts/value.h"

namespace steelyard::exchange {

// The configuration of the same model in Megatron-LM's words, for so many tensor-parallel ranks
// (the vocabulary is padded for them); none for families that `models_table`
// (catalog/import/megatron_models.toml) does not know. `megatron_table` is
// catalog/import/megatron.toml.
// Errors: those of Megatron-LM's arguments, for values that they do not accept.
[[nodiscard]] Result<std::optional<facts::Value>> megatron_equivalent(
    const facts::Value& config, std::int64_t tensor, const facts::Value& models_table,
    const facts::Value& megatron_table);

}  // namespace steelyard::exchange
