// Diffusion transformers and their companions against the libraries' own classes: names and shapes
// of all weights of tiny models (diffusion_state_dicts.json; oracle_diffusion.py made it).
#include <gtest/gtest.h>

#include <map>

#include "codec/codec.h"
#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

const std::filesystem::path kFile =
    std::filesystem::path(STEELYARD_TESTS_DIR) / "model" / "diffusion_state_dicts.json";

std::map<std::string, Shape> shapes_from(const facts::Value& table) {
  std::map<std::string, Shape> shapes;
  for (const auto& [name, list] : *table.as_object()) {
    Shape& shape = shapes[name];
    for (const facts::Value& extent : *list.as_array()) shape.push_back(*extent.as_whole());
  }
  return shapes;
}

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

TEST(DiffusionFamilies, HaveTheNamesAndShapesOfTheirLibraries) {
  const auto recorded = codec::read_value(kFile);
  ASSERT_TRUE(recorded) << to_text(recorded.error());
  const facts::Array& models = *recorded->find("models")->as_array();
  EXPECT_GE(models.size(), 15u);
  for (const facts::Value& model : models) {
    const facts::Value& config = *model.find("config");
    SCOPED_TRACE(codec::to_json(config, 0));
    const auto graph = build({"recorded", config, ""}, {.batch = 2});
    ASSERT_TRUE(graph) << to_text(graph.error());
    EXPECT_EQ(weights_of(*graph), shapes_from(*model.find("weights")));
    EXPECT_EQ(parameter_count(*graph), Parameters(*model.find("parameters")->as_whole()));
  }
}

facts::Value cogvideo() {
  facts::Value config{facts::Object{}};
  config.set("_class_name", facts::Value("CogVideoXTransformer3DModel"));
  return config;
}

// 49 frames make 13 latents, 480 x 720 pixels 60 x 90 of them, in patches of 2 x 2; 226 of text.
TEST(DiffusionFamilies, CountTheTokensOfAVideo) {
  const auto graph =
      build({"cog", cogvideo(), ""}, {.batch = 1, .height = 480, .width = 720, .frames = 49});
  ASSERT_TRUE(graph) << to_text(graph.error());
  const Block& layer = graph->segments.at(1).blocks.front();
  EXPECT_EQ(layer.tensors.at(static_cast<std::size_t>(layer.input.index)).shape,
            (Shape{1, 226 + 13 * 30 * 45, 30 * 64}));
  EXPECT_EQ(graph->frames, 49);
  EXPECT_EQ(graph->image_height, 480);
  EXPECT_EQ(graph->library, "diffusers");
}

TEST(DiffusionFamilies, RefuseASideThatPatchesDoNotDivide) {
  const auto graph = build({"cog", cogvideo(), ""}, {.batch = 1, .height = 488, .width = 720});
  ASSERT_FALSE(graph);
  EXPECT_NE(to_text(graph.error()).find("patch_size"), std::string::npos);
}

// diffusers' class has more switches than any Stable Diffusion sets; each would change the network.
TEST(Unet, SwitchesThatAreNotBuiltAreNamed) {
  const auto source = catalogue().model("stable-diffusion-v1-5");
  ASSERT_TRUE(source);
  const std::vector<std::pair<const char*, facts::Value>> variants = {
      {"num_class_embeds", 1000},
      {"resnet_time_scale_shift", "scale_shift"},
      {"conv_in_kernel", 5},
      {"only_cross_attention", true},
      {"class_embed_type", "timestep"},
      {"time_cond_proj_dim", 256}};
  for (const auto& [key, value] : variants) {
    facts::ModelSource changed = *source;
    changed.config.set(key, value);
    const auto graph = build(changed, {.batch = 1});
    ASSERT_FALSE(graph) << key;
    EXPECT_EQ(graph.error().subject, std::string("stable-diffusion-v1-5: ") + key);
  }
  facts::ModelSource same = *source;  // as diffusers writes SDXL's file
  same.config.set("conv_in_kernel", 3);
  same.config.set("only_cross_attention", false);
  same.config.set("class_embed_type", facts::Value());
  EXPECT_TRUE(build(same, {.batch = 1}));
}

}  // namespace
}  // namespace steelyard::model
