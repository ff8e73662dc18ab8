// Networks that read pictures, and encoders: names, shapes and arithmetic, by hand and as their
// publishers state them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

using testing::HasSubstr;

Graph built(facts::Object config, const SampleShape& sample) {
  auto graph = build(source_of(std::move(config)), sample);
  if (!graph) throw std::runtime_error(to_text(graph.error()));
  return std::move(*graph);
}

Error error_of(facts::Object config, const SampleShape& sample = {}) {
  const auto graph = build(source_of(std::move(config)), sample);
  return graph ? Error{} : graph.error();
}

Shape output_of(const Block& block, std::string_view op) {
  const Operator* found = find_operator(block, op);
  if (found == nullptr) return {};
  return block.tensors.at(static_cast<std::size_t>(found->outputs.front().index)).shape;
}

// torchvision's table of weights: GFLOPS 4.09, which counts a multiply-add once.
TEST(ResNet, MultipliesWhatTorchvisionStates) {
  const Graph graph = built({{"model_type", "torchvision_resnet"}}, {.batch = 2});
  EXPECT_NEAR(forward_flops(graph).value() / 2.0, 2.0 * 4.09e9, 0.005 * 8.18e9);
}

// The stem by hand: 7x7 with stride 2 and padding 3 makes (224 + 6 - 7) / 2 + 1 = 112, and its
// products are 2 * 112 * 112 * 64 * (3 * 49).
TEST(ResNet, StemHalvesTwice) {
  const Graph graph = built({{"model_type", "torchvision_resnet"}}, {.batch = 1});
  const Block& stem = graph.segments.front().blocks.front();
  EXPECT_EQ(output_of(stem, "conv1"), (Shape{1, 64, 112, 112}));
  EXPECT_EQ(output_of(stem, "maxpool"), (Shape{1, 64, 56, 56}));
  EXPECT_EQ(forward_flops(*find_operator(stem, "conv1"), stem, graph).value(),
            2.0 * 112 * 112 * 64 * 147);
  // The running mean and variance of its norm, and how many batches it saw.
  ASSERT_EQ(stem.buffers.size(), 3u);
  EXPECT_EQ(stem.buffers[0].name, "bn1.running_mean");
  EXPECT_EQ(stem.buffers[0].shape, Shape{64});
  EXPECT_EQ(elements(stem.buffers[2].shape), 1);
}

// Three blocks of the first stage: the first has a shortcut of its own (64 -> 256 channels).
TEST(ResNet, OnlyTheFirstBlockOfAStageHasAShortcut) {
  const Graph graph = built({{"model_type", "torchvision_resnet"}}, {.batch = 1});
  ASSERT_EQ(graph.segments.size(), 10u);
  EXPECT_EQ(graph.segments[1].repeat, 1);
  EXPECT_EQ(graph.segments[2].repeat, 2);
  EXPECT_NE(find_weight(graph.segments[1].blocks[0], "downsample.0.weight"), nullptr);
  EXPECT_EQ(find_weight(graph.segments[2].blocks[0], "downsample.0.weight"), nullptr);
  EXPECT_EQ(find_weight(graph.segments[1].blocks[0], "conv2.weight")->shape, (Shape{64, 64, 3, 3}));
  EXPECT_EQ(graph.segments[7].blocks[0].name, "layer4");
}

// ResNeXt-50 32x4d: 128 channels inside of the first stage, in 32 groups of 4.
TEST(ResNet, GroupsNarrowTheKernels) {
  const Graph graph = built(
      {{"model_type", "torchvision_resnet"}, {"groups", 32}, {"width_per_group", 4}}, {.batch = 1});
  EXPECT_EQ(find_weight(graph.segments[1].blocks[0], "conv2.weight")->shape, (Shape{128, 4, 3, 3}));
}

// timm's table: ViT-B/16 of 224 pixels has 16.87 GMACs without its attention scores; those are
// 12 layers * 2 * 197^2 * 768.
TEST(VisionTransformer, MultipliesWhatItsShapesSay) {
  const Graph graph = built({{"model_type", "timm_vision_transformer"}}, {.batch = 1});
  const double tokens = 197, hidden = 768;
  const double layer = 2.0 * tokens * 12.0 * hidden * hidden;  // qkv 3, proj 1, mlp 8
  const double scores = 4.0 * tokens * tokens * hidden;
  const double patches = 2.0 * 196 * hidden * (3 * 16 * 16);
  const double head = 2.0 * hidden * 1000;
  EXPECT_DOUBLE_EQ(forward_flops(graph).value(), 12.0 * (layer + scores) + patches + head);
}

TEST(VisionTransformer, TakesThePictureSizeOfTheJob) {
  const Graph graph =
      built({{"model_type", "vit"}, {"patch_size", 16}}, {.batch = 1, .height = 384, .width = 224});
  EXPECT_EQ(graph.image_height, 384);
  EXPECT_EQ(graph.image_width, 224);
  EXPECT_EQ(output_of(graph.segments.front().blocks.front(), "class_token"),
            (Shape{1, 24 * 14 + 1, 768}));
  const Error error = error_of({{"model_type", "vit"}}, {.batch = 1, .height = 225, .width = 224});
  EXPECT_THAT(error.subject, HasSubstr("patch_size"));
  EXPECT_THAT(error.hint, HasSubstr("train.image_size"));
}

TEST(VisionTransformer, DeiTHasASecondToken) {
  const Graph graph = built({{"model_type", "deit"}, {"num_hidden_layers", 1}}, {.batch = 2});
  EXPECT_EQ(output_of(graph.segments.front().blocks.front(), "class_token"), (Shape{2, 198, 768}));
}

// One level without attention, one with: the way up concatenates what the way down left.
TEST(UNet, ReadsOnTheWayUpWhatTheWayDownLeft) {
  const Graph graph =
      built({{"_class_name", "UNet2DConditionModel"},
             {"sample_size", 8},
             {"block_out_channels", facts::Array{32, 64}},
             {"layers_per_block", 1},
             {"attention_head_dim", 4},
             {"cross_attention_dim", 24},
             {"down_block_types", facts::Array{"CrossAttnDownBlock2D", "DownBlock2D"}},
             {"up_block_types", facts::Array{"UpBlock2D", "CrossAttnUpBlock2D"}}},
            {.batch = 3});
  ASSERT_EQ(graph.segments.size(), 1u);
  const Block& net = graph.segments[0].blocks[0];
  EXPECT_EQ(output_of(net, "conv_in"), (Shape{3, 32, 8, 8}));
  EXPECT_EQ(output_of(net, "down_blocks.0.downsamplers.0.conv"), (Shape{3, 32, 4, 4}));
  EXPECT_EQ(output_of(net, "down_blocks.1.resnets.0.conv2"), (Shape{3, 64, 4, 4}));
  // Skips, last one first: 64 of level 1, 32 of the downsampler; then 32 and 32 of level 0.
  EXPECT_EQ(output_of(net, "up_blocks.0.skip.0"), (Shape{3, 128, 4, 4}));
  EXPECT_EQ(output_of(net, "up_blocks.0.skip.1"), (Shape{3, 96, 4, 4}));
  EXPECT_EQ(output_of(net, "up_blocks.1.skip.0"), (Shape{3, 96, 8, 8}));
  EXPECT_EQ(output_of(net, "up_blocks.1.skip.1"), (Shape{3, 64, 8, 8}));
  EXPECT_EQ(output_of(net, "conv_out"), (Shape{3, 4, 8, 8}));
  EXPECT_EQ(
      find_weight(net, "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight")->shape,
      (Shape{32, 24}));
  EXPECT_EQ(graph.image_height, 64);
}

TEST(UNet, RefusesSidesThatDoNotHalve) {
  const Error error = error_of({{"_class_name", "UNet2DConditionModel"}, {"sample_size", 60}});
  EXPECT_THAT(error.subject, HasSubstr("sample_size"));
  EXPECT_THAT(error.accepted, HasSubstr("8"));
}

TEST(UNet, RefusesBlocksItDoesNotKnow) {
  const Error error = error_of({{"_class_name", "UNet2DConditionModel"},
                                {"down_block_types", facts::Array{"KDownBlock2D"}}});
  EXPECT_THAT(error.subject, HasSubstr("down_block_types"));
  EXPECT_THAT(error.accepted, HasSubstr("CrossAttnDownBlock2D"));
}

// Mixtral of 4 experts, 2 chosen: the products of a token are those of 2 experts, and of the
// parameters a half of the experts' lies idle.
TEST(Mixture, CountsTheChosenExperts) {
  const Graph graph = built({{"model_type", "mixtral"},
                             {"vocab_size", 10},
                             {"hidden_size", 16},
                             {"intermediate_size", 24},
                             {"num_hidden_layers", 3},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"num_local_experts", 4}},
                            {.batch = 2, .sequence = 5});
  const Block& layer = layer_of(graph);
  const Operator* experts = find_operator(layer, "block_sparse_moe.experts");
  ASSERT_NE(experts, nullptr);
  EXPECT_EQ(forward_flops(*experts, layer, graph).value(), 2.0 * 10 * 2 * (3 * 16 * 24));
  EXPECT_EQ(forward_flops(*find_operator(layer, "block_sparse_moe.gate"), layer, graph).value(),
            2.0 * 10 * 16 * 4);
  EXPECT_EQ(parameter_count(graph) - active_parameter_count(graph),
            Parameters(3 * 2 * (3 * 16 * 24)));
  // 10 tokens choose 2 of 4 experts: 20 choices, 5 of each.
  EXPECT_EQ(output_of(layer, "block_sparse_moe.assignment"), Shape{5});
}

TEST(Mixture, RefusesMoreChosenThanThereAre) {
  const Error error =
      error_of({{"model_type", "mixtral"}, {"num_local_experts", 2}, {"num_experts_per_tok", 3}});
  EXPECT_THAT(error.subject, HasSubstr("num_experts_per_tok"));
}

TEST(Bert, HeadFollowsTheArchitecture) {
  const auto head = [](const char* architecture) {
    const Graph graph = built(
        {{"model_type", "bert"}, {"architectures", facts::Array{architecture}}, {"num_labels", 5}},
        {.batch = 2, .sequence = 16});
    return operator_names(graph.segments.back().blocks.back());
  };
  EXPECT_EQ(head("BertForSequenceClassification"),
            "first_token bert.pooler.dense bert.pooler.dense.act classifier.dropout classifier "
            "loss");
  EXPECT_EQ(head("BertForQuestionAnswering"), "qa_outputs loss");
  EXPECT_THAT(head("BertForPreTraining"), HasSubstr("next_sentence_loss total_loss"));
  EXPECT_THAT(
      error_of({{"model_type", "bert"}, {"architectures", facts::Array{"BertForMultipleChoice"}}})
          .accepted,
      HasSubstr("ForQuestionAnswering"));
}

// The batch as the collator makes it: ids, their mask, types, and what the head compares with.
TEST(Bert, BatchHoldsWhatItsHeadReads) {
  const Graph graph =
      built({{"model_type", "bert"}, {"architectures", facts::Array{"BertForQuestionAnswering"}}},
            {.batch = 3, .sequence = 16});
  std::string names;
  std::int64_t numbers = 0;
  for (const TensorInfo& info : graph.batch_tensors) {
    names += info.name + " ";
    numbers += elements(info.shape);
  }
  EXPECT_EQ(names, "input_ids attention_mask token_type_ids start_positions end_positions ");
  EXPECT_EQ(numbers, 3 * 3 * 16 + 2 * 3);
}

}  // namespace
}  // namespace steelyard::model
