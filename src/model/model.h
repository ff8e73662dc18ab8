// The first header of the room: a model's own configuration -> graph.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "facts/model_source.h"
#include "model/graph.h"

namespace steelyard::model {

struct SampleShape {
  std::int64_t batch = 1;     // samples in the micro-batch, >= 1
  std::int64_t sequence = 0;  // tokens per sample; 0: the configuration's own maximum, at most 2048
  std::int64_t height = 0, width = 0;  // pixels; 0: the configuration's own
  std::int64_t decoder_sequence = 0;   // tokens that a decoder reads beside; 0: as many
  std::int64_t frames = 0;             // of a video; 0: the configuration's own
  std::int64_t images = 0;             // of a sample with text; 0: one
  double audio_seconds = 0.0;          // of a sound; 0: the family's own
};

// Builds the graph of a model as its library defines it. Errors name the key of the
// configuration that is missing or wrong; an unknown model_type lists the known ones and the
// nearest.
[[nodiscard]] Result<Graph> build(const facts::ModelSource& source, SampleShape shape);

// Every model_type that `build` knows, sorted.
[[nodiscard]] std::vector<std::string> known_model_types();

}  // namespace steelyard::model
