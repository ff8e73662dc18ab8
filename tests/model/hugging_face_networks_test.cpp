// transformers' regnet, efficientnet and mobilenets against the library's own classes: names and
// shapes of all weights of small ones (hugging_face_networks.json; oracle_networks.py made it), and
// multiply-adds against the same networks of timm.
#include <gtest/gtest.h>

#include <map>

#include "codec/codec.h"
#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

const std::filesystem::path kFile =
    std::filesystem::path(STEELYARD_TESTS_DIR) / "model" / "hugging_face_networks.json";

std::map<std::string, Shape> weights_of(const Graph& graph) {
  std::map<std::string, Shape> weights;
  std::map<std::string, std::int64_t> layers;
  for (const Segment& segment : graph.segments) {
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      for (const Block& block : segment.blocks) {
        const bool end = block.name == "embed" || block.name == "head";
        const std::string prefix =
            end ? "" : block.name + "." + std::to_string(layers[block.name]++) + ".";
        for (const Weight& weight : block.weights) {
          EXPECT_TRUE(weights.emplace(prefix + weight.name, weight.shape).second) << weight.name;
        }
      }
    }
  }
  return weights;
}

TEST(HuggingFaceNetworks, HaveTheNamesAndShapesOfTransformers) {
  const auto recorded = codec::read_value(kFile);
  ASSERT_TRUE(recorded) << to_text(recorded.error());
  const facts::Array& models = *recorded->find("models")->as_array();
  EXPECT_GE(models.size(), 6U);
  for (const facts::Value& model : models) {
    const facts::Value& config = *model.find("config");
    SCOPED_TRACE(codec::to_json(config, 0));
    const auto graph = build({"recorded", config, ""}, {.batch = 2});
    ASSERT_TRUE(graph) << to_text(graph.error());
    std::map<std::string, Shape> shapes;
    for (const auto& [name, list] : *model.find("weights")->as_object()) {
      for (const facts::Value& extent : *list.as_array()) {
        shapes[name].push_back(*extent.as_whole());
      }
    }
    EXPECT_EQ(weights_of(*graph), shapes);
    EXPECT_EQ(parameter_count(*graph).value(), *model.find("parameters")->as_whole());
  }
}

Graph network(const char* id) {
  const auto source = catalogue().model(id);
  EXPECT_TRUE(source) << (source ? "" : to_text(source.error()));
  const auto graph = build(*source, {.batch = 1, .height = 224, .width = 224});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph.value_or(Graph());
}

// The same networks under other names: as many multiply-adds, but for heads of 1,001 classes.
TEST(HuggingFaceNetworks, MultiplyAsMuchAsTimms) {
  const std::pair<const char*, const char*> same[] = {
      {"regnet-y-040", "timm/regnety_040"},
      {"efficientnet-b0", "timm/efficientnet_b0"},
      {"mobilenet-v2-1.0-224", "timm/mobilenetv2_100"},
  };
  for (const auto& [own, timm] : same) {
    const double ours = forward_flops(network(own)).value();
    const double theirs = forward_flops(network(timm)).value();
    EXPECT_NEAR(ours / theirs, 1.0, 1e-4) << own;
  }
}

TEST(HuggingFaceNetworks, MistakesAreNamed) {
  facts::Value config = facts::Object{{"model_type", "regnet"}, {"depths", facts::Array{2, 3}}};
  const auto graph = build({"wrong", config, ""}, {.batch = 1});
  ASSERT_FALSE(graph);
  EXPECT_NE(graph.error().subject.find("depths"), std::string::npos) << to_text(graph.error());
}

}  // namespace
}  // namespace steelyard::model
