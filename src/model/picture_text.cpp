#include "model/picture_text.h"

#include <fmt/format.h>

#include <algorithm>

namespace steelyard::model {

std::int64_t pictures_of(const SampleShape& sample) {
  return checked_multiply(sample.batch, std::max<std::int64_t>(1, sample.images));
}

namespace {

// A sample holds the tokens of its pictures, and at least one of text.
void check_tokens(ConfigReader& config, const Graph& graph) {
  if (graph.visual_tokens < graph.sequence) return;
  config.reject(Error{
      .code = ErrorCode::impossible_combination,
      .subject = "train.sequence_length",
      .found = fmt::format("{} tokens", graph.sequence),
      .accepted = fmt::format("more than the {} tokens of the sample's pictures of {} x {} pixels",
                              graph.visual_tokens, graph.image_height, graph.image_width),
      .hint = "the length of a sample counts the tokens of its pictures; set it, or a smaller "
              "train.image_size or train.images",
      .file = {},
      .line = {}});
}

}  // namespace

Graph start_picture_text(ConfigReader& config, const TextStack& text, const SampleShape& sample,
                         const PicturesOfSample& pictures) {
  Graph graph = start_graph(config, text.sizes, sample);
  Shape table = {text.own_positions ? graph.batch : 1, graph.sequence, text.rotary_dims};
  if (text.sections) table = {3, graph.batch, graph.sequence, text.rotary_dims};
  graph.shared.push_back({"cos", table, ElementKind::real});
  graph.shared.push_back({"sin", table, ElementKind::real});
  graph.shared.push_back({"pixel_values", pictures.pixels, ElementKind::pixels});
  graph.batch_tensors.push_back(graph.shared.back());
  if (text.local_tables) {
    graph.shared.push_back({"local_cos", table, ElementKind::real});
    graph.shared.push_back({"local_sin", table, ElementKind::real});
  }
  graph.image_height = pictures.height;
  graph.image_width = pictures.width;
  graph.images = std::max<std::int64_t>(1, sample.images);
  graph.visual_tokens = pictures.tokens;
  check_tokens(config, graph);
  return graph;
}

namespace {

TensorRef finish_embedding(BlockBuilder& block, const TextStack& text, TensorRef x) {
  const std::string name = text.names.root + ".embed_tokens";
  if (text.embedding_scale && !text.scales_text_alone) {
    x = block.scale(name + ".scale", x, *text.embedding_scale);
  }
  if (text.rotary_dims > 0) block.rotary_table(text.names.root + ".rotary_emb", kCos, kSin);
  if (text.local_tables) {
    block.rotary_table(text.names.root + ".rotary_emb_local", kPictureLocalCos, kPictureLocalSin);
  }
  return x;
}

}  // namespace

TensorRef add_merged_embedding(const Graph& graph, BlockBuilder& block, const TextStack& text,
                               TensorRef features) {
  const std::string name = text.names.root + ".embed_tokens";
  TensorRef tokens = block.embedding(name, kTokenIds, graph.vocabulary, graph.hidden);
  if (text.embedding_scale && text.scales_text_alone) {
    tokens = block.scale(name + ".scale", tokens, *text.embedding_scale);
  }
  return finish_embedding(block, text,
                          block.merge_pictures("merge_pictures", tokens, features, kTokenIds));
}

TensorRef add_plain_embedding(const Graph& graph, BlockBuilder& block, const TextStack& text) {
  const std::string name = text.names.root + ".embed_tokens";
  return finish_embedding(block, text,
                          block.embedding(name, kTokenIds, graph.vocabulary, graph.hidden));
}

void add_text_layers(Graph& graph, const TextStack& text) {
  graph.layers = text.sizes.layers;
  add_layers(graph, text.kinds, [&](int kind) { return text.layer(graph, kind); });
  add_head(graph, text.sizes, text.head);
}

}  // namespace steelyard::model
