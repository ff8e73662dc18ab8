// The model that Megatron-LM's arguments describe, as a configuration under Megatron's own names
// (model_type "megatron_gpt" or "megatron_t5", src/model/megatron_gpt.cpp and megatron_t5.cpp).
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "exchange/megatron_arguments.h"
#include "facts/value.h"

namespace steelyard::exchange {

// `tensor`: tensor-parallel ranks, which the vocabulary is padded for.
[[nodiscard]] Result<facts::Value> megatron_model(const MegatronArguments& arguments,
                                                  std::int64_t tensor);

// T5: a decoder behind an encoder.
[[nodiscard]] bool is_encoder_decoder(const MegatronArguments& arguments);

// --hybrid-layer-pattern with the layers of further predictions behind /; "" for other models.
[[nodiscard]] std::string hybrid_pattern(const MegatronArguments& arguments);

// The letters of a hybrid pattern; num-layers, or encoder-num-layers, its older name. Error: none.
[[nodiscard]] Result<std::int64_t> layers_of(const MegatronArguments& arguments);

}  // namespace steelyard::exchange
