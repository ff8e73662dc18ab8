// T5 as Megatron-LM's own code builds it (megatron/core/models/T5/t5_model.py, t5_spec.py): GPT's
// layers twice, the decoder's with a second attention whose keys and values come from the encoder;
// one table of words and one of positions for both; a head with a bias of its own.
#include "model/encoder_decoder.h"
#include "model/megatron_layers.h"

namespace steelyard::model {

namespace {

constexpr const char* kWords = "embedding.word_embeddings";
constexpr const char* kPositions = "embedding.position_embeddings";

struct MegatronT5 {
  Megatron encoder;
  Megatron decoder;
};

MegatronT5 read_megatron_t5(ConfigReader& config) {
  MegatronT5 model;
  model.encoder = read_megatron(config);
  model.encoder.causal = false;
  model.decoder = model.encoder;
  model.decoder.causal = true;
  model.decoder.sizes.layers =
      config.whole({"decoder-num-layers"}, model.encoder.sizes.layers, kLayerLimits);
  if (!model.encoder.learned_positions) {
    config.reject("position-embedding-type", "another kind", "learned_absolute",
                  "T5 with rope or relative positions is not built in this version");
  }
  return model;
}

// Words and positions of one of the two streams. The decoder's reads the encoder's tables.
TensorRef embedded(BlockBuilder& block, const Graph& graph, const Megatron& model, TensorRef ids,
                   std::int64_t tokens, bool again) {
  const std::string name = again ? "decoder_" : "";
  TensorRef x = block.embedding(kWords, ids, graph.vocabulary, graph.hidden,
                                again ? std::string(kWords) + ".weight" : "");
  const TensorRef positions =
      block.position_embedding(kPositions, model.sizes.max_sequence, graph.hidden, 1, tokens);
  if (again) block.tie_weight(std::string(kPositions) + ".weight");
  x = block.add(name + "embedding.add_positions", x, positions);
  return block.dropout(name + "embedding.embedding_dropout", x, model.hidden_dropout);
}

Block encoder_layer(const Graph& graph, const Megatron& model) {
  BlockBuilder block(graph, "encoder.layers");
  return block.finish(megatron_layer(block, model, 0, block.input(source_stream(graph))));
}

Block decoder_layer(const Graph& graph, const Megatron& model) {
  BlockBuilder block(graph, "decoder.layers");
  return block.finish(
      megatron_decoder_layer(block, model, block.input(target_stream(graph)), kEncoderStates));
}

Block encoder_end(const Graph& graph, const MegatronT5& model) {
  BlockBuilder block(graph, "middle");
  const TensorRef x = block.input(source_stream(graph));
  static_cast<void>(megatron_norm(block, model.encoder, "encoder.final_layernorm", x));
  block.publish(kEncoderStates);
  return block.finish(
      embedded(block, graph, model.decoder, kTargetIds, graph.decoder_sequence, true));
}

Block head_of(const Graph& graph, const Megatron& model) {
  BlockBuilder block(graph, "head");
  const TensorRef x =
      megatron_norm(block, model, "decoder.final_layernorm", block.input(target_stream(graph)));
  const bool tied = model.sizes.tied;
  const TensorRef logits =
      block.linear("lm_head.output_layer", x, graph.vocabulary,
                   {.bias = tied, .tied_to = tied ? std::string(kWords) + ".weight" : ""});
  return block.finish(block.causal_lm_loss(logits, kTargetLabels));
}

}  // namespace

Graph build_megatron_t5(ConfigReader& config, const SampleShape& sample) {
  const MegatronT5 model = read_megatron_t5(config);
  Graph graph = start_encoder_decoder(config, model.encoder.sizes, sample);
  graph.layers += model.decoder.sizes.layers;
  check_positions(config, graph, model.encoder.sizes.max_sequence, "max-position-embeddings");
  BlockBuilder start(graph, "embed");
  const TensorRef x = embedded(start, graph, model.encoder, kSourceIds, graph.sequence, false);
  graph.segments.push_back({1, {start.finish(x)}});
  graph.segments.push_back({model.encoder.sizes.layers, {encoder_layer(graph, model.encoder)}});
  graph.segments.push_back({1, {encoder_end(graph, model)}});
  graph.segments.push_back({model.decoder.sizes.layers, {decoder_layer(graph, model.decoder)}});
  graph.segments.push_back({1, {head_of(graph, model.decoder)}});
  return graph;
}

}  // namespace steelyard::model
