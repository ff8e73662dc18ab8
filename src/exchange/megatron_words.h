// What Megatron-LM's arguments say of single operators, as words laid over the framework profile's,
// and the words that they may say.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "exchange/megatron_arguments.h"

namespace steelyard::exchange {

// megatron/legacy/model instead of core's layers.
[[nodiscard]] bool runs_legacy_layers(const MegatronArguments& arguments);
// training/argument_utils.py: a dense layer's bias and activation are one kernel.
[[nodiscard]] bool fuses_activation(const MegatronArguments& arguments);

// Masks, transfers, caches: composite operator -> variant.
[[nodiscard]] std::map<std::string, std::string, std::less<>> words_of(
    const MegatronArguments& arguments);

// CUDA graphs: of the whole step, of whole layers (no modules named; Megatron-LM asserts that no
// shape depends on where tokens go), or of the modules named, of which experts are never one.
[[nodiscard]] Result<void> add_graph_words(
    const MegatronArguments& arguments, std::map<std::string, std::string, std::less<>>& operators);

// Errors: bad_input for a word that Megatron-LM does not know, impossible_combination for what its
// validate_args refuses, not_supported for what is known but not built.
[[nodiscard]] Result<void> check_words(const MegatronArguments& arguments);

// Those that selective recomputation may run again.
[[nodiscard]] Result<void> check_recomputed_modules(const std::vector<std::string>& modules);

}  // namespace steelyard::exchange
