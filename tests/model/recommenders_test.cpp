// DLRM: tables, MLPs and the products between their vectors.
#include <gtest/gtest.h>

#include "codec/codec.h"
#include "model/model.h"

namespace steelyard::model {
namespace {

facts::Value config_of(const char* text) {
  const auto value = codec::parse(text, codec::Format::json, "test");
  EXPECT_TRUE(value);
  return value ? *value : facts::Value();
}

constexpr const char* kSmall = R"({"model_type": "dlrm",
    "num_embeddings_per_feature": [1000, 20, 3], "embedding_dim": 16, "dense_features": 13,
    "bottom_mlp": [64, 16], "top_mlp": [32, 1], "interaction": "dot"})";

Graph built(const char* text, std::int64_t batch = 8) {
  const auto graph = build({"test", config_of(text), ""}, {.batch = batch});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph ? *graph : Graph();
}

TEST(Dlrm, CountsTablesAndLayers) {
  const Graph graph = built(kSmall);
  // Tables 1023 x 16; 13 -> 64 -> 16; of four vectors six pairs beside the dense one: 22 -> 32
  // -> 1.
  EXPECT_EQ(parameter_count(graph).value(),
            1023 * 16 + (13 * 64 + 64) + (64 * 16 + 16) + (22 * 32 + 32) + (32 + 1));
  EXPECT_EQ(graph.row_bytes, 4 * (3 + 13 + 1));
}

// A description is a file of one's own: a slip of the pen would leave the dense features out.
TEST(Dlrm, NamesKeysThatAreNearlyOnes) {
  facts::Value config = config_of(kSmall);
  config.set("remark", "of the file's own");
  EXPECT_TRUE(build({"test", config, ""}, {.batch = 8}));
  config.set("sparse_gradient", false);
  const auto graph = build({"test", config, ""}, {.batch = 8});
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().subject, "test: sparse_gradient");
  EXPECT_EQ(graph.error().hint, "did you mean \"sparse_gradients\"?");
}

TEST(Dlrm, MultipliesWhatItsCodeMultiplies) {
  const Graph graph = built(kSmall, 1);
  const double mlps = 13 * 64 + 64 * 16 + 22 * 32 + 32;
  const double pairs = 4 * 4 * 16;  // all of the product, not only the pairs that are read
  EXPECT_DOUBLE_EQ(forward_flops(graph).value(), 2.0 * (mlps + pairs));
}

TEST(Dlrm, OtherInteractions) {
  // Vectors side by side: (3 + 1) x 16 -> 32 -> 1.
  const Graph cat = built(R"({"model_type": "dlrm", "num_embeddings_per_feature": [5, 5, 5],
      "embedding_dim": 16, "dense_features": 2, "bottom_mlp": [16], "top_mlp": [32, 1],
      "interaction": "cat"})");
  EXPECT_EQ(parameter_count(cat).value(), 15 * 16 + (2 * 16 + 16) + (64 * 32 + 32) + 33);
  const Graph none = built(R"({"model_type": "dlrm", "num_embeddings_per_feature": [5, 7],
      "embedding_dim": 8, "dense_features": 0, "bottom_mlp": [], "top_mlp": [],
      "interaction": "none", "pooling": 4})");
  EXPECT_EQ(parameter_count(none).value(), 12 * 8);
  EXPECT_EQ(none.shared[0].shape, (Shape{8, 8}));  // two features of four ids
}

TEST(Dlrm, RefusesWhatDoesNotFitTogether) {
  const auto refused = [](const char* text) {
    const auto graph = build({"test", config_of(text), ""}, {});
    EXPECT_FALSE(graph);
    return graph ? std::string() : graph.error().subject;
  };
  EXPECT_EQ(refused(R"({"model_type": "dlrm", "num_embeddings_per_feature": [5],
      "embedding_dim": 16, "dense_features": 2, "bottom_mlp": [8]})"),
            "test: bottom_mlp");
  EXPECT_EQ(refused(R"({"model_type": "dlrm", "embedding_dim": 16})"),
            "test: num_embeddings_per_feature");
  EXPECT_EQ(refused(R"({"model_type": "dlrm", "num_embeddings_per_feature": [5, 6, 7],
      "pooling": [1, 2]})"),
            "test: pooling");
}

}  // namespace
}  // namespace steelyard::model
