// Models that hear against transformers itself: names and shapes of their state dicts and their
// parameters (tests/step/speech_models.json; oracle_saved_speech.py made it).
#include <gtest/gtest.h>

#include <map>

#include "codec/codec.h"
#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

std::map<std::string, Shape> weights_of(const Graph& graph) {
  std::map<std::string, Shape> weights;
  std::map<std::string, std::int64_t> layers;
  for (const Segment& segment : graph.segments) {
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      for (const Block& block : segment.blocks) {
        const bool end = block.name == "embed" || block.name == "middle" || block.name == "head";
        const std::string prefix =
            end ? "" : block.name + "." + std::to_string(layers[block.name]++) + ".";
        for (const Weight& weight : block.weights) weights[prefix + weight.name] = weight.shape;
      }
    }
  }
  return weights;
}

TEST(Speech, HasTheStateDictsOfTransformers) {
  const auto file =
      codec::read_value(std::filesystem::path(STEELYARD_TESTS_DIR) / "step/speech_models.json");
  ASSERT_TRUE(file) << to_text(file.error());
  for (const facts::Value& row : *file->find("models")->as_array()) {
    SCOPED_TRACE(codec::to_json(*row.find("config"), 0));
    const auto graph =
        build({"recorded", *row.find("config"), ""}, {.batch = 2, .audio_seconds = 1.0});
    ASSERT_TRUE(graph) << to_text(graph.error());
    std::map<std::string, Shape> recorded;
    for (const auto& [name, shape] : *row.find("weights")->as_object()) {
      for (const facts::Value& size : *shape.as_array()) {
        recorded[name].push_back(*size.as_whole());
      }
    }
    EXPECT_EQ(weights_of(*graph), recorded);
    EXPECT_EQ(parameter_count(*graph).value(), *row.find("parameters")->as_whole());
  }
}

}  // namespace
}  // namespace steelyard::model
