// Llama 4's file of the whole model: pictures and text.
#pragma once

#include "model/config_reader.h"
#include "model/graph.h"
#include "model/model.h"
#include "model/text_stack.h"

namespace steelyard::model {

// By the class that the file names: the text model, or pictures and text. Errors (of the reader):
// another class, or none.
Graph build_llama4(ConfigReader& config, const SampleShape& sample);

// Of the text model's own configuration; names as `names` says.
[[nodiscard]] TextStack read_llama4_stack(ConfigReader& config, const TextNames& names);

// Llama4ForConditionalGeneration (llama4_pictures.cpp).
Graph build_llama4_pictures(ConfigReader& config, const SampleShape& sample);

}  // namespace steelyard::model
