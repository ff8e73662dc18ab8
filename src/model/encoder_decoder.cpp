#include "model/encoder_decoder.h"

namespace steelyard::model {

Graph start_encoder_decoder(const ConfigReader& config, const Sizes& sizes,
                            const SampleShape& sample) {
  Graph graph = start_graph(config, sizes, sample);
  graph.decoder_sequence = sample.decoder_sequence > 0 ? sample.decoder_sequence : graph.sequence;
  const Shape source = {graph.batch, graph.sequence};
  const Shape target = {graph.batch, graph.decoder_sequence};
  // DataCollatorForSeq2Seq lets the model shift the labels into decoder_input_ids.
  graph.batch_tensors = {{"input_ids", source, ElementKind::token_ids},
                         {"decoder_input_ids", target, ElementKind::token_ids},
                         {"labels", target, ElementKind::token_ids},
                         {"attention_mask", source, ElementKind::token_ids}};
  graph.shared = graph.batch_tensors;
  graph.shared.push_back({"padding_mask", {graph.batch, 1, 1, graph.sequence}, ElementKind::real});
  graph.shared.push_back({"encoder_hidden_states", source_stream(graph), ElementKind::real});
  return graph;
}

Shape source_stream(const Graph& graph) {
  return {graph.batch, graph.sequence, graph.hidden};
}

Shape target_stream(const Graph& graph) {
  return {graph.batch, graph.decoder_sequence, graph.hidden};
}

}  // namespace steelyard::model
