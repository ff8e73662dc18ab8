// Other ends of a language model, and its cache.
#include "model/task_head.h"

#include <gtest/gtest.h>

#include "model/generation.h"
#include "model/model.h"

namespace steelyard::model {
namespace {

Graph llama(std::int64_t batch, std::int64_t sequence, bool tied = false) {
  const facts::ModelSource source{"small llama",
                                  facts::Object{{"model_type", "llama"},
                                                {"hidden_size", 64},
                                                {"num_attention_heads", 4},
                                                {"num_key_value_heads", 2},
                                                {"intermediate_size", 160},
                                                {"num_hidden_layers", 3},
                                                {"vocab_size", 500},
                                                {"tie_word_embeddings", tied}},
                                  ""};
  const Result<Graph> graph = build(source, {batch, sequence});
  EXPECT_TRUE(graph);
  return graph.value_or(Graph());
}

const Block& head_of(const Graph& graph) {
  return graph.segments.back().blocks.back();
}

// LlamaForSequenceClassification, num_labels=1: 500 x 64 of the head make way for 64.
TEST(TaskHead, ScoreReplacesTheOutputProjection) {
  for (const bool tied : {false, true}) {
    const Graph before = llama(2, 32, tied);
    const auto scored = with_task_head(before, {.head = TaskHead::scores});
    ASSERT_TRUE(scored);
    const std::int64_t gone = tied ? 0 : 500 * 64;
    EXPECT_EQ(parameter_count(*scored).value(), parameter_count(before).value() - gone + 64);
    EXPECT_EQ(head_of(*scored).operators.back().kind, OperatorKind::linear);
    EXPECT_EQ(head_of(*scored).weights.back().name, "score.weight");
  }
}

TEST(TaskHead, ProjectionReadsTheLastTokens) {
  const auto graph = with_task_head(llama(2, 32), {.keeps = 9});
  ASSERT_TRUE(graph);
  const Block& head = head_of(*graph);
  ASSERT_EQ(head.operators.back().kind, OperatorKind::alignment_loss);
  const Operator& taken = head.operators[head.operators.size() - 2];
  ASSERT_EQ(taken.kind, OperatorKind::log_probabilities);
  EXPECT_EQ(head.tensors[static_cast<std::size_t>(taken.inputs[0].index)].shape,
            (Shape{2, 9, 500}));
  EXPECT_EQ(head.tensors[static_cast<std::size_t>(taken.outputs[0].index)].shape, (Shape{2, 9}));
}

// transformers 4.49 on the meta device: gpt2 and its classes. 124,439,808 as a language model.
TEST(ClassHead, OfTheClassThatArchitecturesNames) {
  const auto gpt2 = [](const char* name, std::int64_t labels) {
    return build(
        {"gpt2",
         facts::Object{
             {"model_type", "gpt2"}, {"architectures", facts::Array{name}}, {"num_labels", labels}},
         ""},
        {2, 32});
  };
  const std::vector<std::pair<const char*, std::int64_t>> counts = {
      {"GPT2LMHeadModel", 124'439'808},
      {"GPT2Model", 124'439'808},
      {"GPT2ForSequenceClassification", 124'441'344},
      {"GPT2ForTokenClassification", 124'441'346},
      {"GPT2ForQuestionAnswering", 124'441'346}};
  for (const auto& [name, parameters] : counts) {
    const auto graph = gpt2(name, 2);
    ASSERT_TRUE(graph) << to_text(graph.error());
    EXPECT_EQ(parameter_count(*graph).value(), parameters) << name;
  }
  EXPECT_EQ(head_of(*gpt2("GPT2ForSequenceClassification", 1)).operators.back().kind,
            OperatorKind::squared_loss);
  const auto scored =
      with_task_head(*gpt2("GPT2ForSequenceClassification", 1), {.head = TaskHead::scores_loss});
  ASSERT_TRUE(scored);
  EXPECT_EQ(parameter_count(*scored).value(), 124'439'808 + 768);
  const auto refused = gpt2("GPT2DoubleHeadsModel", 2);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().found.find("GPT2DoubleHeadsModel"), std::string::npos);
}

// transformers 4.49: BartForSequenceClassification of bart-large's sizes, three labels.
TEST(ClassHead, OfBothStacksReadsTheLastToken) {
  const auto graph =
      build({"bart",
             facts::Object{{"model_type", "bart"},
                           {"architectures", facts::Array{"BartForSequenceClassification"}}},
             ""},
            {2, 32});
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(parameter_count(*graph).value(), 407'344'131);
  EXPECT_EQ(head_of(*graph).operators.back().kind, OperatorKind::classification_loss);
}

TEST(ClassHead, OfPicturesIsRefusedByName) {
  const auto graph =
      build({"beit",
             facts::Object{{"model_type", "beit"},
                           {"use_relative_position_bias", true},
                           {"architectures", facts::Array{"BeitForSemanticSegmentation"}}},
             ""},
            {2});
  ASSERT_FALSE(graph);
  EXPECT_NE(graph.error().found.find("BeitForSemanticSegmentation"), std::string::npos);
}

TEST(TaskHead, EncodersAreRefused) {
  const facts::ModelSource bert{"bert",
                                facts::Object{{"model_type", "bert"},
                                              {"architectures", facts::Array{"BertForMaskedLM"}},
                                              {"hidden_size", 64},
                                              {"num_hidden_layers", 2},
                                              {"num_attention_heads", 4},
                                              {"intermediate_size", 128},
                                              {"vocab_size", 99}},
                                ""};
  const Result<Graph> graph = build(bert, {1, 16});
  ASSERT_TRUE(graph) << to_text(graph.error());
  const auto with = with_task_head(*graph, {});
  ASSERT_FALSE(with);
  EXPECT_EQ(with.error().subject, "train.objective");
}

TEST(Generation, CacheIsOfKeyValueHeads) {
  const Graph graph = llama(2, 32);
  const auto caches = caches_of(graph.segments[1].blocks.front());
  ASSERT_EQ(caches.size(), 1U);
  EXPECT_EQ(caches[0].keys, 2 * 16);
  EXPECT_EQ(caches[0].values, 2 * 16);
  EXPECT_EQ(caches[0].tokens_of(100), 100);
}

// One token reads 100: two products of 64 with 100 keys for each of two samples and three layers.
TEST(Generation, TokenReadsItsPast) {
  const auto one = with_task_head(llama(2, 1), {.head = TaskHead::logits, .keeps = 1});
  ASSERT_TRUE(one);
  const Graph token = with_past(*one, 100);
  const auto attention = [](const Graph& graph) {
    Flops sum;
    for (const Segment& segment : graph.segments) {
      for (const Block& block : segment.blocks) {
        for (const Operator& op : block.operators) {
          if (op.kind != OperatorKind::attention) continue;
          sum += forward_flops(op, block, graph) * static_cast<double>(segment.repeat);
        }
      }
    }
    return sum;
  };
  EXPECT_EQ(attention(token).value(), 2.0 * 2 * 64 * 100 * 2 * 3);
}

}  // namespace
}  // namespace steelyard::model
