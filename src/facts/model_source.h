// A model before it is a graph: its own configuration and where that came from.
#pragma once

#include <string>

#include "facts/value.h"

namespace steelyard::facts {

struct ModelSource {
  std::string name;    // catalogue id, file name, or "inline"
  Value config;        // Hugging Face style keys, overrides of [model] set already applied
  std::string source;  // where the figures come from; empty when the user's own
};

}  // namespace steelyard::facts
