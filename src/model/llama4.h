// Llama 4's file of the whole model: pictures and text.
#pragma once

#include "model/config_reader.h"
#include "model/graph.h"
#include "model/model.h"

namespace steelyard::model {

// Errors (of the reader): a class that reads pictures, whose tower is not built.
Graph build_llama4(ConfigReader& config, const SampleShape& sample);

}  // namespace steelyard::model
