// A model's graph as a table: what each operator is, holds, computes and keeps for backward.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/value.h"

namespace steelyard::facts {

// Of one layer, and one micro-batch.
struct ModelOperator {
  std::string name;                  // as in the model's own code: "self_attn.q_proj"
  std::string kind;                  // "linear"
  std::vector<std::int64_t> output;  // shape of its first result
  Parameters parameters;             // tied ones not counted again
  Flops forward_flops;
  // Bytes of what it allocated and what is still there when the whole forward pass has run: its
  // saved tensors as the framework's own code keeps them, not what others saved of it before.
  Bytes saved;
};

// A run of equal layers, or what comes before and after them.
struct ModelPart {
  std::string name;         // "model.layers"
  std::int64_t layers = 1;  // how many there are; the figures below are of one
  Parameters parameters;
  Flops forward_flops;
  Bytes saved;
  std::vector<ModelOperator> operators;
};

// Weights by the type that the job holds them in.
struct HeldParameters {
  std::string dtype;  // empty: quantized storage of several types
  Parameters parameters;
  Bytes bytes;
};

// A weight of the state dict. Those of a repeated layer once, named relative to it.
struct ModelWeight {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string tied_to;  // whose storage it shares; empty: its own
};

struct ModelPartWeights {
  std::string name;  // as ModelPart::name
  std::int64_t layers = 1;
  std::vector<ModelWeight> weights;
};

struct ModelTable {
  std::string name, model_type, source;
  std::vector<std::string> remarks;  // what the configuration says that is planned otherwise
  std::string framework, precision;  // whose code keeps what is saved, and in which types
  std::int64_t batch = 1, sequence = 1;
  std::int64_t image_height = 0, image_width = 0;  // 0: no pictures
  std::int64_t decoder_sequence = 0;               // tokens that a decoder reads; 0: no such model
  std::int64_t frames = 0;                         // of a video; 0: none
  double audio_seconds = 0.0;                      // of a sound; 0: none
  std::int64_t row_bytes = 0;                      // of a row of a table, 4 a feature; 0: none
  std::int64_t layers = 0, hidden = 0, vocabulary = 0;
  Parameters parameters, trainable, active;
  Flops forward_flops;  // of the micro-batch
  Bytes saved;          // of all layers
  std::vector<HeldParameters> held;
  std::vector<ModelPart> parts;
  std::vector<ModelPartWeights> weights;
  Value config;  // the model's own configuration
};

}  // namespace steelyard::facts
