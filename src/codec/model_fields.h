// Every key of `steelyard model NAME --json` (schema steelyard.model-table/1), once: the same table
// writes it and describes it as a JSON Schema.
#pragma once

#include "codec/codec.h"
#include "codec/leaf.h"
#include "codec/rule.h"

namespace steelyard::codec {

inline constexpr const char* kModelSchema = "steelyard.model-table/1";

inline constexpr auto model_operator_fields = [](auto& v, auto& o) {
  v.key("name", o.name, about("as in the model's own code"));
  v.key("kind", o.kind, about("linear, attention, rms_norm, ..."));
  v.key("output", o.output, about("shape of its first result"));
  v.key("parameters", o.parameters, about("tied ones not counted again"));
  v.key("forward_flops", o.forward_flops, about("FLOP of the micro-batch"));
  v.key("saved", o.saved, about("bytes it allocates that backward waits for"));
};

inline constexpr auto model_part_fields = [](auto& v, auto& p) {
  v.key("name", p.name, about("of a layer, or what lies before and behind the layers"));
  v.key("layers", p.layers, about("how many alike; the other figures are of one"));
  v.key("parameters", p.parameters, about("of one layer"));
  v.key("forward_flops", p.forward_flops, about("FLOP of one layer and the micro-batch"));
  v.key("saved", p.saved, about("bytes of one layer that backward waits for"));
  v.list("operators", p.operators, model_operator_fields, about("in the order they run"));
};

inline constexpr auto held_parameters_fields = [](auto& v, auto& h) {
  v.key("dtype", h.dtype, about("type they are held in; empty: quantized storage"));
  v.key("parameters", h.parameters, about("how many"));
  v.key("bytes", h.bytes, about("of one whole copy"));
};

inline constexpr auto model_weight_fields = [](auto& v, auto& w) {
  v.key("name", w.name, about("in the state dict; of a repeated layer relative to it"));
  v.key("shape", w.shape, about("as stored"));
  v.key("tied_to", w.tied_to, about("whose storage it shares; empty: its own"));
};

inline constexpr auto model_part_weights_fields = [](auto& v, auto& p) {
  v.key("name", p.name, about("of the part"));
  v.key("layers", p.layers, about("how many alike"));
  v.list("weights", p.weights, model_weight_fields, about("of one"));
};

inline constexpr auto model_table_fields = [](auto& v, auto& t) {
  v.constant("schema", kModelSchema);
  v.key("name", t.name, about("catalogue id or file name"));
  v.key("type", t.model_type, about("the configuration's model_type"));
  v.key("source", t.source, about("where the configuration comes from; empty: the user's own"));
  v.key("remarks", t.remarks, about("what the configuration says and is planned otherwise"));
  v.key("framework", t.framework, about("whose code keeps what is saved"));
  v.key("precision", t.precision, about("in which types"));
  v.key("batch", t.batch, about("samples of the micro-batch"));
  v.key("sequence", t.sequence, about("tokens per sample"));
  v.key("image_height", t.image_height, about("pixels; 0: no pictures"));
  v.key("image_width", t.image_width, about("pixels; 0: no pictures"));
  v.key("decoder_sequence", t.decoder_sequence, about("tokens of a decoder; 0: none"));
  v.key("frames", t.frames, about("of a video; 0: none"));
  v.key("audio_seconds", t.audio_seconds, about("of a sound; 0: none"));
  v.key("row_bytes", t.row_bytes, about("of a row of a table, 4 a feature; 0: none"));
  v.key("layers", t.layers, about("repeated blocks"));
  v.key("hidden", t.hidden, about("width of the residual stream"));
  v.key("vocabulary", t.vocabulary, about("0: none"));
  v.key("parameters", t.parameters, about("all, tied ones once"));
  v.key("trainable_parameters", t.trainable, about("those that get a gradient"));
  v.key("active_parameters", t.active, about("used by one token"));
  v.key("forward_flops", t.forward_flops, about("FLOP of the micro-batch"));
  v.key("saved", t.saved, about("bytes that backward waits for, of all layers"));
  v.list("held", t.held, held_parameters_fields, about("parameters by type"));
  v.list("parts", t.parts, model_part_fields, about("in the order they run"));
  v.list("weights", t.weights, model_part_weights_fields, about("of each part"));
};

}  // namespace steelyard::codec
