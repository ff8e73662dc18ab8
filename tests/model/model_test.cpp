// What `build` promises whatever the family: sizes, limits and messages.
#include "model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

using testing::HasSubstr;

Error error_of(facts::Object config, SampleShape sample = {.batch = 1, .sequence = 64}) {
  const auto graph = build(source_of(std::move(config)), sample);
  return graph ? Error{} : graph.error();
}

facts::Object llama_with(std::string key, facts::Value value) {
  return {{"model_type", "llama"}, {std::move(key), std::move(value)}};
}

TEST(Model, KnowsItsFamiliesInOrder) {
  const std::vector<std::string> known = known_model_types();
  EXPECT_TRUE(std::ranges::is_sorted(known));
  EXPECT_GE(known.size(), 114u);
}

TEST(Model, UnknownTypeListsTheNearestAndWhereAllAre) {
  const Error error = error_of({{"model_type", "lama"}});
  EXPECT_EQ(error.code, ErrorCode::unknown_name);
  EXPECT_THAT(error.subject, HasSubstr("model_type"));
  EXPECT_THAT(error.found, HasSubstr("lama"));
  EXPECT_THAT(error.accepted, HasSubstr("docs/model/graph.md"));
  EXPECT_THAT(error.hint, HasSubstr("\"llama\""));
  const Error newer = error_of({{"model_type", "qwen9_omni"}});
  EXPECT_THAT(newer.accepted, HasSubstr("qwen3_moe"));
  EXPECT_LT(newer.accepted.size(), 160u);
}

TEST(Model, TypeThatIsReadUnderAnotherNameIsToldSo) {
  EXPECT_THAT(error_of({{"model_type", "chatglm"}}).hint, HasSubstr("glm-4-9b-hf"));
}

TEST(Model, DocumentationListsEveryType) {
  std::ifstream file(std::string(STEELYARD_SOURCE_DIR) + "/docs/model/graph.md");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::regex word("[A-Za-z0-9_-]+");
  std::set<std::string> words;
  for (auto i = std::sregex_iterator(text.begin(), text.end(), word); i != std::sregex_iterator();
       ++i) {
    words.insert(i->str());
  }
  for (const std::string& type : known_model_types()) EXPECT_TRUE(words.contains(type)) << type;
}

TEST(Model, TypeFarFromAnyKnownOneGetsNoGuess) {
  EXPECT_EQ(error_of({{"model_type", "xylophone"}}).hint, "");
}

TEST(Model, ArchitecturesAloneAreNotEnoughAndTheMessageSaysSo) {
  const Error error =
      error_of({{"architectures", facts::Array{"LlamaForCausalLM"}}, {"hidden_size", 64}});
  EXPECT_EQ(error.code, ErrorCode::bad_input);
  EXPECT_THAT(error.subject, HasSubstr("model_type"));
  EXPECT_THAT(error.hint, HasSubstr("LlamaForCausalLM"));
}

TEST(Model, MissingTypeIsAnError) {
  EXPECT_THAT(error_of({{"hidden_size", 64}}).subject, HasSubstr("model_type"));
  EXPECT_THAT(error_of({{"model_type", 7}}).found, HasSubstr("whole number"));
}

TEST(Model, ConfigurationMustBeATable) {
  const auto graph = build({"test", facts::Value("gpt2"), ""}, {});
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().found, "text");
}

TEST(Model, UnknownKeysAreIgnored) {
  const auto graph = build(source_of({{"model_type", "gpt2"},
                                      {"torch_dtype", "bfloat16"},
                                      {"task_specific_params", facts::Object{{"x", 1}}}}),
                           {});
  EXPECT_TRUE(graph);
}

TEST(Model, SequenceDefaultsToTheConfigurationsOwnButNotMoreThan2048) {
  EXPECT_EQ(build(source_of({{"model_type", "gpt2"}}), {})->sequence, 1024);
  EXPECT_EQ(build(source_of({{"model_type", "mistral"}}), {})->sequence, 2048);
  // BLOOM knows no limit.
  const auto bloom = build(source_of({{"model_type", "bloom"}}), {});
  EXPECT_EQ(bloom->sequence, 2048);
  EXPECT_EQ(bloom->max_sequence, 0);
}

TEST(Model, SizesStandInTheGraph) {
  const auto graph = build(source_of({{"model_type", "llama"}}), {.batch = 3, .sequence = 100});
  ASSERT_TRUE(graph);
  EXPECT_EQ(graph->model_type, "llama");
  EXPECT_EQ(graph->batch, 3);
  EXPECT_EQ(graph->sequence, 100);
  EXPECT_EQ(graph->hidden, 4096);
  EXPECT_EQ(graph->layers, 32);
  EXPECT_EQ(graph->vocabulary, 32000);
}

TEST(Model, AbsurdSamplesAreErrors) {
  EXPECT_THAT(error_of({{"model_type", "gpt2"}}, {.batch = 0, .sequence = 8}).subject,
              HasSubstr("micro-batch"));
  EXPECT_THAT(error_of({{"model_type", "gpt2"}}, {.batch = 1, .sequence = -1}).subject,
              HasSubstr("sequence"));
}

TEST(Model, LearnedPositionsMustReachAsFarAsTheSample) {
  const Error error = error_of({{"model_type", "gpt2"}}, {.batch = 1, .sequence = 1025});
  EXPECT_EQ(error.code, ErrorCode::impossible_combination);
  EXPECT_THAT(error.subject, HasSubstr("n_positions"));
  EXPECT_THAT(error.found, HasSubstr("1025"));
  EXPECT_THAT(error_of({{"model_type", "opt"}}, {.batch = 1, .sequence = 4096}).subject,
              HasSubstr("max_position_embeddings"));
}

TEST(Model, HiddenMustDivideIntoHeadsUnlessTheHeadIsGiven) {
  const Error error = error_of({{"model_type", "llama"}, {"num_attention_heads", 24}});
  EXPECT_THAT(error.subject, HasSubstr("num_attention_heads"));
  EXPECT_THAT(error.found, HasSubstr("24"));
  EXPECT_THAT(error.accepted, HasSubstr("4096"));
  EXPECT_TRUE(build(
      source_of({{"model_type", "llama"}, {"num_attention_heads", 24}, {"head_dim", 128}}), {}));
}

TEST(Model, KeyHeadsMustDivideTheHeads) {
  const Error error = error_of(llama_with("num_key_value_heads", 5));
  EXPECT_THAT(error.subject, HasSubstr("num_key_value_heads"));
  EXPECT_THAT(error_of(llama_with("num_key_value_heads", 64)).found, HasSubstr("64"));
}

TEST(Model, WrongValuesNameTheirKey) {
  const std::vector<std::pair<std::string, facts::Value>> wrong = {
      {"num_hidden_layers", 0},
      {"num_hidden_layers", -3},
      {"num_hidden_layers", 100'001},
      {"num_hidden_layers", "32"},
      {"num_hidden_layers", 1.5},
      {"vocab_size", std::int64_t{1} << 60},
      {"vocab_size", 0},
      {"hidden_size", -4096},
      {"hidden_size", facts::Array{}},
      {"num_attention_heads", 0},
      {"num_key_value_heads", -1},
      {"intermediate_size", 0},
      {"intermediate_size", 1e300},
      {"max_position_embeddings", 0},
      {"tie_word_embeddings", "yes"},
      {"attention_dropout", 1.5},
      {"attention_dropout", "none"},
      {"hidden_act", "tanh5"},
      {"hidden_act", 3},
      {"head_dim", 0},
  };
  for (const auto& [key, value] : wrong) {
    const Error error = error_of(llama_with(key, value));
    EXPECT_EQ(error.code, ErrorCode::bad_input) << key;
    EXPECT_THAT(error.subject, HasSubstr(key));
    EXPECT_FALSE(error.accepted.empty()) << key;
  }
}

TEST(Model, WholeNumbersMayBeWrittenWithAPoint) {
  EXPECT_TRUE(build(source_of(llama_with("num_hidden_layers", 16.0)), {}));
}

TEST(Model, MisspeltActivationListsTheKnownOnes) {
  const Error error = error_of(llama_with("hidden_act", "sillu"));
  EXPECT_THAT(error.accepted, HasSubstr("gelu_new"));
  EXPECT_THAT(error.hint, HasSubstr("\"silu\""));
}

TEST(Model, ProductsBeyond64BitsAreErrorsNotCrashes) {
  const Error error = error_of({{"model_type", "llama"},
                                {"hidden_size", 1'048'576},
                                {"intermediate_size", 16'777'216},
                                {"num_hidden_layers", 100'000},
                                {"vocab_size", 16'777'216}},
                               {.batch = 1'000'000, .sequence = 1'073'741'824});
  EXPECT_EQ(error.code, ErrorCode::bad_input);
  EXPECT_THAT(error.found, HasSubstr("64 bits"));
}

// Any single key of any family, set to any kind of nonsense: an error or a graph, never a crash.
TEST(Model, NonsenseInAnyKeyIsHandled) {
  const std::vector<std::string> keys = {"vocab_size",
                                         "hidden_size",
                                         "n_embd",
                                         "d_model",
                                         "num_hidden_layers",
                                         "n_layer",
                                         "n_layers",
                                         "num_attention_heads",
                                         "n_head",
                                         "n_heads",
                                         "num_key_value_heads",
                                         "num_kv_heads",
                                         "head_dim",
                                         "intermediate_size",
                                         "n_inner",
                                         "ffn_dim",
                                         "ffn_hidden_size",
                                         "max_position_embeddings",
                                         "n_positions",
                                         "max_seq_len",
                                         "tie_word_embeddings",
                                         "hidden_act",
                                         "activation_function",
                                         "activation",
                                         "attention_dropout",
                                         "sliding_window",
                                         "layer_types",
                                         "attn_config",
                                         "ffn_config",
                                         "rotary_dim",
                                         "partial_rotary_factor",
                                         "rope_parameters",
                                         "expansion_ratio",
                                         "word_embed_proj_dim",
                                         "multi_query",
                                         "num_ln_in_parallel_attn",
                                         "max_window_layers",
                                         "logits_scaling",
                                         "final_logit_softcapping",
                                         "rotary_pct"};
  const std::vector<facts::Value> nonsense = {
      facts::Value(),
      true,
      0,
      -1,
      1,
      3,
      std::int64_t{1} << 62,
      -1e308,
      0.5,
      1e308,
      std::numeric_limits<double>::quiet_NaN(),
      "",
      "gelu",
      facts::Array{},
      facts::Array{"x", 1},
      facts::Object{},
      facts::Object{{"attn_type", "grouped_query_attention"}, {"kv_n_heads", 7}}};
  int errors = 0;
  int graphs = 0;
  for (const std::string& type : known_model_types()) {
    for (const std::string& key : keys) {
      for (const facts::Value& value : nonsense) {
        const auto graph =
            build(source_of({{"model_type", type}, {key, value}}), {.batch = 1, .sequence = 8});
        graph ? ++graphs : ++errors;
        if (!graph) {
          EXPECT_FALSE(graph.error().subject.empty()) << type << ' ' << key;
        }
      }
    }
  }
  EXPECT_GT(errors, 1000);
  EXPECT_GT(graphs, 1000);
}

}  // namespace
}  // namespace steelyard::model
