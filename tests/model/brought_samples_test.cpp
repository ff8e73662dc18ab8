// What a sample is, for models that read pictures beside text and for those that read latents: the
// tokens that pictures take, and the bytes that loaders bring.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "model/latent_source.h"
#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

using testing::HasSubstr;

Graph named(const std::string& id, const SampleShape& sample) {
  const auto source = catalogue().model(id);
  if (!source) throw std::runtime_error(to_text(source.error()));
  auto graph = build(*source, sample);
  if (!graph) throw std::runtime_error(to_text(graph.error()));
  return std::move(*graph);
}

const TensorInfo& batch_tensor(const Graph& graph, std::string_view name) {
  for (const TensorInfo& tensor : graph.batch_tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::runtime_error("no tensor of the batch");
}

// 1536 x 2048 pixels are 3 x 4 tiles of 512, and one of the whole; each is (512/16)^2 / 4^2 = 64
// tokens.
TEST(Tiles, AreCutOfLargePicturesAlone) {
  const Graph small = named("smolvlm-256m", {.batch = 2, .sequence = 1024});
  EXPECT_EQ(small.visual_tokens, 64);
  EXPECT_EQ(batch_tensor(small, "pixel_values").shape, (Shape{2, 3, 512, 512}));
  const Graph large =
      named("smolvlm-256m", {.batch = 2, .sequence = 2048, .height = 1536, .width = 2048});
  EXPECT_EQ(large.visual_tokens, 13 * 64);
  EXPECT_EQ(batch_tensor(large, "pixel_values").shape, (Shape{26, 3, 512, 512}));
  EXPECT_EQ(batch_tensor(large, "pixel_attention_mask").shape, (Shape{26, 512, 512}));
}

TEST(Tiles, HaveToLeaveRoomForText) {
  const auto source = catalogue().model("smolvlm-256m");
  const auto graph = build(*source, {.sequence = 512, .height = 1536, .width = 2048});
  ASSERT_FALSE(graph);
  EXPECT_THAT(to_text(graph.error()), HasSubstr("832 tokens"));
}

// A picture is one token of the text whatever its size; the tower sees four tiles of 560 pixels.
TEST(LlamaVision, ReadsPicturesBesideTheText) {
  const Graph graph =
      named("llama-3.2-11b-vision", {.batch = 2, .sequence = 128, .height = 720, .width = 1280});
  EXPECT_EQ(graph.visual_tokens, 1);
  EXPECT_EQ(graph.image_height, 720);
  EXPECT_EQ(batch_tensor(graph, "pixel_values").shape, (Shape{8, 3, 560, 560}));
  const auto found = std::find_if(graph.shared.begin(), graph.shared.end(), [](const auto& tensor) {
    return tensor.name == "cross_attention_states";
  });
  ASSERT_NE(found, graph.shared.end());
  EXPECT_EQ(found->shape, (Shape{2, 4 * 1601, 4096}));
}

TEST(LlamaVision, RefusesAWidthThatItsLayersDoNotGive) {
  const auto graph =
      build(source_of({{"model_type", "mllama"},
                       {"vision_config", facts::Object{{"vision_output_dim", 999}}}}),
            {.sequence = 64});
  ASSERT_FALSE(graph);
  EXPECT_THAT(to_text(graph.error()), HasSubstr("7680"));
}

// The loader resizes: 4096 patches of 896 pixels a side, averaged to 256 tokens.
TEST(Gemma3, GivesEveryPictureAsManyTokens) {
  const Graph graph =
      named("gemma-3-4b", {.sequence = 1024, .height = 480, .width = 640, .images = 3});
  EXPECT_EQ(graph.visual_tokens, 3 * 256);
  EXPECT_EQ(batch_tensor(graph, "pixel_values").shape, (Shape{3, 3, 896, 896}));
}

// 13 frames of latents stand for 49 of 480 x 720 pixels, and 226 states of text for 226 tokens.
TEST(Latents, AreMadeOfPixelsWhereAnAutoencoderIs) {
  const Graph graph = named("cogvideox-2b", {.frames = 49});
  ASSERT_TRUE(reads_latents(graph));
  EXPECT_EQ(pixels_of(graph).shape, (Shape{1, 49, 3, 480, 720}));
  const std::int64_t pixels = 49 * 3 * 480 * 720 * 4;
  EXPECT_EQ(brought_bytes(graph, {.pixels = true, .tokens = true}).value(), pixels + 226 * 8);
  const std::int64_t latents = 13 * 16 * 60 * 90 * 4;
  EXPECT_EQ(brought_bytes(graph, {}).value(), latents + 226 * 4096 * 4);
  EXPECT_EQ(brought_bytes(graph, {.tokens = true}).value(), latents + 226 * 8);
}

TEST(Latents, AreNothingToAModelOfText) {
  const Graph graph = named("gpt2", {.batch = 3, .sequence = 100});
  EXPECT_FALSE(reads_latents(graph));
  EXPECT_EQ(brought_bytes(graph, {.pixels = true, .tokens = true}).value(), 2 * 3 * 100 * 8);
}

// diffusers: self.out_channels = in_channels if out_channels is None else out_channels; PixArt's
// class has 8 of its own.
TEST(Latents, HaveAsManyChannelsOutAsInWhereTheConfigurationSaysNull) {
  const auto width_of_head = [](facts::Object config) {
    config.emplace_back("sample_size", 8);
    config.emplace_back("num_layers", 1);
    const auto graph = build(source_of(std::move(config)), {});
    if (!graph) throw std::runtime_error(to_text(graph.error()));
    return batch_tensor(*graph, "noise").shape.at(1);
  };
  EXPECT_EQ(width_of_head({{"_class_name", "DiTTransformer2DModel"}}), 4);
  EXPECT_EQ(
      width_of_head({{"_class_name", "DiTTransformer2DModel"}, {"out_channels", facts::Value()}}),
      4);
  EXPECT_EQ(width_of_head({{"_class_name", "DiTTransformer2DModel"}, {"out_channels", 8}}), 8);
  EXPECT_EQ(width_of_head({{"_class_name", "PixArtTransformer2DModel"}}), 8);
  EXPECT_EQ(width_of_head(
                {{"_class_name", "PixArtTransformer2DModel"}, {"out_channels", facts::Value()}}),
            4);
}

// DETR's encoder sees the last feature map: 800 x 1333 pixels over 32, rounded up.
TEST(Detr, TakesTheLastMapAsTokens) {
  const Graph graph = named("detr-resnet-50", {.batch = 2});
  bool found = false;
  for (const TensorInfo& tensor : graph.shared) {
    if (tensor.name != "encoder_hidden_states") continue;
    EXPECT_EQ(tensor.shape, (Shape{2, 25 * 42, 256}));
    found = true;
  }
  EXPECT_TRUE(found);
}

TEST(Detr, KeepsTheFirstLayersAsTheyAre) {
  const Graph graph = named("detr-resnet-50", {});
  std::int64_t frozen = 0;
  for (const Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Weight& weight : block.weights) {
        if (!weight.trains) frozen += segment.repeat * elements(weight.shape);
      }
    }
  }
  EXPECT_EQ(frozen, 41'524'768 - 41'302'368);  // transformers: of all and of those with a gradient
}

}  // namespace
}  // namespace steelyard::model
