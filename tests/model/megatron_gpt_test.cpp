// GPT models by Megatron-LM's own names. Parameters are counted by hand.
#include <gtest/gtest.h>

#include "model/model.h"

namespace steelyard::model {
namespace {

facts::Object small() {
  return {
      {"model_type", "megatron_gpt"}, {"num-layers", 2},       {"hidden-size", 512},
      {"num-attention-heads", 8},     {"vocab-size", 50257},   {"max-position-embeddings", 1024},
      {"ffn-hidden-size", 2048},      {"num-query-groups", 8}, {"kv-channels", 64}};
}

std::int64_t parameters_of(const facts::Object& changes) {
  facts::Value config{small()};
  for (const auto& [key, value] : changes) config.set(key, value);
  const auto graph = build({"test", config, ""}, {.batch = 2, .sequence = 128});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph ? parameter_count(*graph).value() : 0;
}

// A layer: qkv 3 x 512^2 + 1536, proj 512^2 + 512, fc1 2048 x 512 + 2048, fc2 2048 x 512 + 512,
// two norms of 2 x 512: 3,152,384. Vocabulary padded to a multiple of 128: 50304.
constexpr std::int64_t kLayer = 3'152'384;
constexpr std::int64_t kEmbedding = 50304 * 512;

TEST(MegatronGpt, CountsItsParameters) {
  EXPECT_EQ(parameters_of({}), 2 * kLayer + kEmbedding + 1024 * 512 + 1024);
  EXPECT_EQ(parameters_of({{"untie-embeddings-and-output-weights", true}}),
            2 * kLayer + 2 * kEmbedding + 1024 * 512 + 1024);
  EXPECT_EQ(parameters_of({{"position-embedding-type", "rope"}}), 2 * kLayer + kEmbedding + 1024);
}

// The first operator that reads a tensor which is not there; empty when all are.
std::string reads_nothing(const Graph& graph) {
  const auto there = [&](const Block& block, TensorRef ref) {
    return static_cast<std::size_t>(ref.index) <
           (ref.shared ? graph.shared.size() : block.tensors.size());
  };
  for (const Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Operator& op : block.operators) {
        for (const TensorRef ref : op.inputs) {
          if (!there(block, ref)) return op.name;
        }
      }
    }
  }
  return {};
}

// Multi-latent attention turns its positions by a table of its own, beside learned ones too (found
// in Megatron's own test gpt3_mcore_te_tp2_pp2_mla).
TEST(MegatronGpt, LatentAttentionHasItsOwnTableBesideLearnedPositions) {
  facts::Value config{small()};
  config.set("multi-latent-attention", true);
  for (const char* kind : {"learned_absolute", "rope", "none"}) {
    config.set("position-embedding-type", kind);
    const auto graph = build({"test", config, ""}, {.batch = 2, .sequence = 128});
    ASSERT_TRUE(graph) << to_text(graph.error());
    EXPECT_EQ(reads_nothing(*graph), "") << kind;
  }
}

// Without biases: 1536 + 512 + 2048 + 512 fewer per layer; add-qkv-bias brings back 1536.
TEST(MegatronGpt, LeavesBiasesOut) {
  const std::int64_t bare = parameters_of({{"add-bias-linear", false}});
  EXPECT_EQ(bare, parameters_of({}) - std::int64_t{2 * 4608});
  EXPECT_EQ(parameters_of({{"add-bias-linear", false}, {"add-qkv-bias", true}}), bare + 2 * 1536);
}

// 50257 tokens over 4 ranks: up to a multiple of 512, 50688.
TEST(MegatronGpt, PadsTheVocabularyForItsRanks) {
  EXPECT_EQ(parameters_of({{"tensor-model-parallel-size", 4}}),
            parameters_of({}) + (50688 - 50304) * std::int64_t{512});
}

// SwiGLU doubles fc1; RMSNorm has no bias; two groups of keys and values: qkv is (8 + 4) x 64 wide.
TEST(MegatronGpt, KnowsOtherShapes) {
  EXPECT_EQ(parameters_of({{"swiglu", true}}),
            parameters_of({}) + 2 * (2048 * std::int64_t{512} + 2048));
  EXPECT_EQ(parameters_of({{"normalization", "RMSNorm"}}), parameters_of({}) - (2 * 2 + 1) * 512);
  EXPECT_EQ(parameters_of({{"num-query-groups", 2}}),
            parameters_of({}) - 2 * (1536 - 768) * std::int64_t{513});
  EXPECT_EQ(parameters_of({{"qk-layernorm", true}}), parameters_of({}) + 2 * 4 * 64);
}

// 4 experts of two matrices 512 x 1024, a router of 4 x 512 and a shared expert of twice 512 x 256
// take the place of fc1, fc2 and their biases; every second layer is a mixture.
TEST(MegatronGpt, KnowsMixturesOfExperts) {
  const std::int64_t dense = 2 * (std::int64_t{2048} * 512) + 2048 + 512;
  const std::int64_t mixture = 4 * 2 * (std::int64_t{512} * 1024) + 4 * 512 + 2 * 512 * 256;
  const facts::Object experts = {{"num-experts", 4},
                                 {"moe-ffn-hidden-size", 1024},
                                 {"moe-shared-expert-intermediate-size", 256}};
  EXPECT_EQ(parameters_of(experts), parameters_of({}) + 2 * (mixture - dense));
  facts::Object half = experts;
  half.emplace_back("moe-layer-freq", "2");
  EXPECT_EQ(parameters_of(half), parameters_of({}) + mixture - dense);
  half.back().second = "([0]*1+[1]*1)";
  EXPECT_EQ(parameters_of(half), parameters_of({}) + mixture - dense);
}

// Queries 8 x (64 + 32) wide, keys and values from 128: kv_down (128 + 32) x 512, a norm of 2 x
// 128, kv_up 8 x (64 + 48) x 128, proj 512 x 8 x 48, and proj's bias as before. Compressed queries:
// down 256 x 512, a norm of 2 x 256, up 768 x 256.
TEST(MegatronGpt, KnowsMultiLatentAttention) {
  const std::int64_t plain = 3 * 512 * 512 + 1536 + 512 * 512;
  const std::int64_t keys = 160 * 512 + 2 * 128 + 8 * 112 * 128 + 512 * 384;
  facts::Object latent = {
      {"multi-latent-attention", true}, {"kv-lora-rank", 128}, {"qk-head-dim", 64},
      {"qk-pos-emb-head-dim", 32},      {"v-head-dim", 48},    {"qk-layernorm", true}};
  EXPECT_EQ(parameters_of(latent), parameters_of({}) + 2 * (keys + 768 * 512 - plain));
  latent.emplace_back("q-lora-rank", 256);
  const std::int64_t queries = 256 * 512 + 2 * 256 + 768 * 256;
  EXPECT_EQ(parameters_of(latent), parameters_of({}) + 2 * (keys + queries - plain));
}

// Every second layer of two sees all tokens, the first 128 before its own and itself.
TEST(MegatronGpt, KnowsWindowsAndSinks) {
  facts::Value config{small()};
  config.set("window-size", "(128, 0)");
  config.set("window-attn-skip-freq", "2");
  config.set("softmax-type", "learnable");
  const auto graph = build({"test", config, ""}, {.batch = 2, .sequence = 128});
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(parameter_count(*graph).value(), parameters_of({}) + 2 * 8);
  std::vector<std::int64_t> windows;
  for (const Segment& segment : graph->segments) {
    for (const Block& block : segment.blocks) {
      for (const Operator& op : block.operators) {
        if (op.kind == OperatorKind::attention) windows.push_back(op.attention.window);
      }
    }
  }
  EXPECT_EQ(windows, (std::vector<std::int64_t>{129, 0}));
}

// A mixer of 16 heads of 64 channels, 8 groups of 128 states: the projection in is 2 x 1024 + 2 x
// 1024 + 16 = 4112 wide, the convolution has 4 taps and a bias for 3072 channels; dt's bias, A and
// D of 16 heads, the gated norm's weight, the projection out 1024 x 512, and the norm before.
constexpr std::int64_t kMamba = 4112 * 512 + 5 * 3072 + 3 * 16 + 1024 + 1024 * 512 + 1024;
constexpr std::int64_t kAttentionHalf = 4 * 512 * 512 + 1536 + 512 + 1024;

TEST(MegatronGpt, BuildsHybridsByTheirPattern) {
  const std::int64_t ends = parameters_of({}) - 2 * kLayer;
  EXPECT_EQ(parameters_of({{"hybrid-layer-pattern", "MM"}}), ends + 2 * kMamba);
  EXPECT_EQ(parameters_of({{"hybrid-layer-pattern", "M-|*M"}}), ends + 2 * kMamba + kLayer);
  // Twice as many groups: 2 x 1024 more columns and channels.
  EXPECT_EQ(parameters_of({{"hybrid-layer-pattern", "M"}, {"mamba-num-groups", 16}}),
            ends + kMamba + 2048 * 512 + 5 * 2048);
  // Experts in a width of 128: two matrices of 128 x 2048 each, the router, two projections.
  EXPECT_EQ(parameters_of({{"hybrid-layer-pattern", "*E"},
                           {"num-experts", 4},
                           {"moe-latent-size", 128},
                           {"add-bias-linear", false}}),
            ends + 4 * 512 * 512 + 1024 + 1024 + 4 * 2 * 128 * 2048 + 4 * 512 + 2 * 128 * 512);
}

// Norms of the embedding, of the states and behind the layer, and a projection of both; the table
// and the output are shared with the model's own. Behind / the same in a hybrid.
TEST(MegatronGpt, PredictsFurtherTokens) {
  const facts::Object rope = {{"position-embedding-type", "rope"}};
  const std::int64_t extra = 3 * 1024 + 1024 * 512;
  facts::Object two = rope;
  two.emplace_back("mtp-num-layers", 2);
  EXPECT_EQ(parameters_of(two), parameters_of(rope) + 2 * (extra + kLayer));
  two.emplace_back("mtp-use-repeated-layer", true);
  EXPECT_EQ(parameters_of(two), parameters_of(rope) + extra + kLayer);
  facts::Object untied = rope;  // one output matrix for all, as wide as the states
  untied.emplace_back("untie-embeddings-and-output-weights", true);
  const std::int64_t alone = parameters_of(untied);
  untied.emplace_back("mtp-num-layers", 2);
  EXPECT_EQ(parameters_of(untied), alone + 2 * (extra + kLayer));
  facts::Object hybrid = rope;
  hybrid.emplace_back("hybrid-layer-pattern", "M-");
  const std::int64_t plain = parameters_of(hybrid);
  hybrid.back().second = "M-/*/*";
  EXPECT_EQ(parameters_of(hybrid), plain + 2 * (extra + kAttentionHalf));
}

TEST(MegatronGpt, SaysWhatIsMissingOrNotBuilt) {
  const auto subject = [](const char* key, facts::Value value) {
    facts::Value config{small()};
    config.set(key, std::move(value));
    const auto graph = build({"test", config, ""}, {.batch = 1, .sequence = 128});
    return graph ? std::string() : graph.error().subject;
  };
  EXPECT_EQ(subject("vocab-size", {}), "test: vocab-size");
  EXPECT_EQ(subject("num-query-groups", 3), "test: num-query-groups");
  EXPECT_EQ(subject("position-embedding-type", "relative"), "test: position-embedding-type");
  EXPECT_EQ(subject("window-size", "(-1, 0)"), "test: window-size");
  EXPECT_EQ(subject("softmax-type", "hard"), "test: softmax-type");
  EXPECT_EQ(subject("moe-layer-freq", "([0]*3)"), "");  // no experts: not read
  EXPECT_EQ(subject("is-hybrid-model", true), "test: hybrid-layer-pattern");
  EXPECT_EQ(subject("hybrid-layer-pattern", "MG"), "test: hybrid-layer-pattern");
  EXPECT_EQ(subject("mtp-num-layers", 1), "test: mtp-num-layers");  // learned positions
  EXPECT_EQ(subject("max-position-embeddings", 64), "test: max-position-embeddings");
}

}  // namespace
}  // namespace steelyard::model
