// Llama 4 with its tower for pictures against transformers' class (llama4_state_dict.json: names
// and shapes of a small one, made by Llama4ForConditionalGeneration of 4.57.1 on the meta device).
#include <gtest/gtest.h>

#include <map>

#include "codec/codec.h"
#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

facts::Value recorded() {
  const auto file =
      std::filesystem::path(STEELYARD_TESTS_DIR) / "model" / "llama4_state_dict.json";
  const auto value = codec::read_value(file);
  EXPECT_TRUE(value) << (value ? "" : to_text(value.error()));
  return value ? value->find("models")->as_array()->front() : facts::Value();
}

Graph graph_of(const SampleShape& sample) {
  const facts::Value model = recorded();
  const auto graph = build({"small", *model.find("config"), ""}, sample);
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph.value_or(Graph());
}

TEST(Llama4Pictures, HasTheNamesAndShapesOfTransformers) {
  const facts::Value model = recorded();
  const Graph graph = graph_of({.batch = 2, .sequence = 32});
  std::map<std::string, Shape> weights, shapes;
  std::map<std::string, std::int64_t> layers;
  for (const Segment& segment : graph.segments) {
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      for (const Block& block : segment.blocks) {
        const bool layer = block.name.ends_with("layers");
        const std::string prefix =
            layer ? block.name + "." + std::to_string(layers[block.name]++) + "." : "";
        for (const Weight& weight : block.weights) weights[prefix + weight.name] = weight.shape;
      }
    }
  }
  for (const auto& [name, list] : *model.find("weights")->as_object()) {
    for (const facts::Value& extent : *list.as_array()) shapes[name].push_back(*extent.as_whole());
  }
  EXPECT_EQ(weights, shapes);
  EXPECT_EQ(parameter_count(graph).value(), *model.find("parameters")->as_whole());
}

// A side of 28 is one tile of four features; 56 x 28 are two tiles and the whole picture.
TEST(Llama4Pictures, LargePicturesAreCutIntoTiles) {
  EXPECT_EQ(graph_of({.batch = 2, .sequence = 32}).visual_tokens, 4);
  const Graph wide = graph_of({.batch = 2, .sequence = 32, .height = 56, .width = 28});
  EXPECT_EQ(wide.visual_tokens, 3 * 4);
  EXPECT_EQ(wide.batch_tensors.back().shape, (Shape{2 * 3, 3, 28, 28}));
}

TEST(Llama4Pictures, FeaturesNeedRoomInTheText) {
  const facts::Value model = recorded();
  const auto graph = build({"small", *model.find("config"), ""}, {.batch = 1, .sequence = 4});
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().subject, "train.sequence_length");
}

}  // namespace
}  // namespace steelyard::model
